package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hythe.dev/hythe/conformance/bench/stub"
	"hythe.dev/hythe/internal/lab/topology"
)

// A space is a network namespace with a stub API server at its loopback address, for one agent. All namespaces of this
// program begin with the prefix.
type space struct {
	name, dir  string
	kubeconfig string
	api        *stub.Server
	server     *http.Server
	cached     bool // Hythe keeps the API server's last state on disk
}

const (
	prefix  = "hb-"
	apiAddr = "127.0.0.1:6443"
)

// emptySpace makes the namespace of a node, with its address and nobody in it.
func emptySpace(name, dir string) (*space, error) {
	s := &space{name: prefix + name, dir: filepath.Join(dir, name)}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if err := topology.DeleteNamespace(s.name); err != nil {
		return nil, err
	}
	if err := topology.CreateNamespace(s.name); err != nil {
		return nil, err
	}
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	if err := s.addNodeAddress(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// newSpace makes a namespace with a stub API server at its loopback address.
func newSpace(name, dir string, server *stub.Server) (*space, error) {
	s, err := emptySpace(name, dir)
	if err != nil {
		return nil, err
	}
	s.api = server
	var listener net.Listener
	err = topology.Do(s.name, func() (err error) {
		listener, err = net.Listen("tcp", apiAddr)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen in %s: %w", s.name, err), s.close())
	}
	s.server = &http.Server{Handler: server, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.server.Serve(listener) }()
	config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":"http://%s"}}],`+
		`"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}]}`, apiAddr)
	if err := os.WriteFile(s.kubeconfig, []byte(config), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write kubeconfig: %w", err), s.close())
	}
	return s, nil
}

// close ends the namespace and its server.
func (s *space) close() error {
	if s.server != nil {
		_ = s.server.Close()
	}
	return topology.DeleteNamespace(s.name)
}

// A subject is what is measured.
type subject string

// The subjects.
const (
	hythe    subject = "hythe"
	nftables subject = "kube-proxy nftables"
	iptables subject = "kube-proxy iptables"
)

// programs are where the binaries are.
type programs struct{ hythe, kubeProxy string }

// command is how a subject is started in s.
func (s *space) command(p programs, who subject) *exec.Cmd {
	if who == hythe {
		args := []string{"node", "--node", nodeName, "--kubeconfig", s.kubeconfig, "--overlay", "none", "--without-lb", "--cni-conf-dir", "",
			"--data", filepath.Join(s.dir, "data"), "--run", filepath.Join(s.dir, "run"), "--admin", "127.0.0.1:9903", "--log-level", "warn"}
		if s.cached {
			args = append(args, "--cache", filepath.Join(s.dir, "cache"))
		}
		return exec.Command(p.hythe, args...)
	}
	mode := strings.TrimPrefix(string(who), "kube-proxy ")
	return exec.Command(p.kubeProxy, "--kubeconfig", s.kubeconfig, "--hostname-override", nodeName, "--proxy-mode", mode, "--cluster-cidr", "10.244.0.0/16",
		"--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0", "--v=1")
}

// An agent is a running subject.
type agent struct {
	*space
	who  subject
	cmd  *exec.Cmd
	log  *os.File
	exit chan error
}

// start starts a subject in s. Its log is a file of its folder.
func (s *space) start(p programs, who subject) (*agent, error) {
	a := &agent{space: s, who: who, cmd: s.command(p, who), exit: make(chan error, 1)}
	var err error
	if a.log, err = os.OpenFile(filepath.Join(s.dir, strings.ReplaceAll(string(who), " ", "-")+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := topology.Start(s.name, a.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", who, err)
	}
	go func() { a.exit <- a.cmd.Wait() }()
	return a, nil
}

// stop ends the agent by a signal, and waits for its end. What it put into the kernel stays.
func (a *agent) stop(signal syscall.Signal) error {
	defer a.log.Close()
	_ = a.cmd.Process.Signal(signal)
	select {
	case <-a.exit:
		return nil
	case <-time.After(20 * time.Second):
		_ = a.cmd.Process.Kill()
		<-a.exit
		return fmt.Errorf("stop %s: it did not end by itself", a.who)
	}
}

// ended is the error of an agent that ended though nobody asked it to.
func (a *agent) ended() error {
	select {
	case err := <-a.exit:
		a.exit <- err
		return fmt.Errorf("%s ended by itself, see %s: %w", a.who, a.log.Name(), errors.Join(errors.New("nobody asked it to"), err))
	default:
		return nil
	}
}

// metrics returns the samples that the agent serves whose line begins with the given text, by the rest before the value.
func (a *agent) metrics(ctx context.Context, begin string) (map[string]float64, error) {
	port := "9903"
	if a.who != hythe {
		port = "10249"
	}
	text, err := a.get(ctx, "http://127.0.0.1:"+port+"/metrics")
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), begin); ok {
			label, value, _ := strings.Cut(rest, " ")
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				out[label] = v
			}
		}
	}
	return out, nil
}

// get asks the agent for a page.
func (a *agent) get(ctx context.Context, url string) (string, error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return topology.Dial(ctx, a.name, network, addr)
		}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(body), err
}

// cpu returns the processor time of the agent so far, and of those whom it started and who ended, in seconds.
func (a *agent) cpu() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read processor time of %s: %w", a.who, err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, fmt.Errorf("read processor time of %s: %q", a.who, text)
	}
	sum := 0.0
	for _, field := range fields[11:15] { // utime, stime, cutime and cstime of proc_pid_stat(5), in hundredths
		hundredths, _ := strconv.ParseFloat(field, 64)
		sum += hundredths / 100
	}
	return sum, nil
}

// memory returns the resident memory of the agent in MB: now, and the most there was.
func (a *agent) memory() (now, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory of %s: %w", a.who, err)
	}
	read := func(name string) float64 {
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, name+":"); ok {
				kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				return kb / 1000
			}
		}
		return 0
	}
	return read("VmRSS"), read("VmHWM"), nil
}
