package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"hythe.dev/hythe/internal/lab/apiserver"
	"hythe.dev/hythe/internal/testenv"
)

// patience is how long a server may take to start or stop.
const patience = 90 * time.Second

// A Server is an etcd and a kube-apiserver. Its address and data stay over Stop and Start.
type Server struct {
	tb        testing.TB
	dir       string
	authority *apiserver.Authority
	plan      apiserver.Server
	etcd, api *process
	client    *http.Client
}

// A process is one running binary.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

// Start runs a server until the end of the test. Without HYTHE_API=1 it skips the test: building the server takes
// minutes, and so make test is the same on each machine. make test-api sets it. Options change how it is run.
func Start(tb testing.TB, options ...func(*apiserver.Server)) *Server {
	tb.Helper()
	s := &Server{tb: tb, dir: tb.TempDir()}
	var err error
	if s.authority, err = apiserver.NewAuthority(); err != nil {
		tb.Fatal(err)
	}
	var apiPort uint16
	s.plan = apiserver.Server{Dir: s.dir, Binaries: binaries(tb), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16")}
	for _, o := range options {
		o(&s.plan)
	}
	for _, port := range []*uint16{&s.plan.EtcdPort, &s.plan.PeerPort, &apiPort} {
		*port = testenv.FreePort(tb)
	}
	s.plan.Address = netip.AddrPortFrom(loopback(), apiPort)
	if err := s.plan.WriteKeys(s.authority); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.api.stop()
		s.etcd.stop()
		if tb.Failed() {
			tb.Logf("the last lines of kube-apiserver:\n%s", s.tail())
		}
	})
	s.startEtcd()
	s.StartAPI()
	return s
}

// binaries finds the folder that scripts/apiserver.sh fills.
func binaries(tb testing.TB) string {
	tb.Helper()
	if testing.Short() || os.Getenv("HYTHE_API") != "1" {
		tb.Skip("needs a Kubernetes API server: run make test-api")
	}
	dir, err := apiserver.Binaries()
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

func loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// Config is for an administrator.
func (s *Server) Config() *rest.Config { return s.ConfigFor("admin", "system:masters") }

// ConfigFor is for a user of some groups.
func (s *Server) ConfigFor(user string, groups ...string) *rest.Config {
	s.tb.Helper()
	chain, key, err := s.authority.Issue(user, groups)
	if err != nil {
		s.tb.Fatal(err)
	}
	return &rest.Config{
		Host:            s.plan.URL(),
		TLSClientConfig: rest.TLSClientConfig{CAData: s.authority.PEM(), CertData: chain, KeyData: key},
		QPS:             -1,
	}
}

// Kubeconfig writes a kubeconfig file for a user of some groups and returns its path.
func (s *Server) Kubeconfig(user string, groups ...string) string {
	s.tb.Helper()
	data, err := s.authority.Kubeconfig(s.plan.URL(), user, groups...)
	if err != nil {
		s.tb.Fatal(err)
	}
	path := filepath.Join(s.tb.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return path
}

// Addr is where kube-apiserver listens.
func (s *Server) Addr() string { return s.plan.Address.String() }

// StopAPI kills kube-apiserver at once; its data stays.
func (s *Server) StopAPI() { s.api.stop() }

// EndAPI asks kube-apiserver to end; it ends watches in good order first.
func (s *Server) EndAPI() {
	s.tb.Helper()
	_ = s.api.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.api.done:
	case <-time.After(patience):
		s.tb.Fatalf("kube-apiserver does not end:\n%s", s.tail())
	}
}

// StartAPI starts kube-apiserver and waits until it is ready.
func (s *Server) StartAPI() {
	s.tb.Helper()
	s.api = s.run("kube-apiserver", s.plan.API())
	s.ready(s.plan.URL(), s.api)
}

// ready waits until a kube-apiserver is.
func (s *Server) ready(url string, p *process) {
	s.tb.Helper()
	client, err := rest.HTTPClientFor(s.Config())
	if err != nil {
		s.tb.Fatal(err)
	}
	defer client.CloseIdleConnections()
	s.wait("kube-apiserver", func(ctx context.Context) error {
		select {
		case <-p.done:
			s.tb.Fatalf("kube-apiserver ended:\n%s", s.tail())
		default:
		}
		return get(ctx, client, url+"/readyz")
	})
}

func (s *Server) startEtcd() {
	s.tb.Helper()
	s.etcd = s.run("etcd", s.plan.Etcd())
	s.wait("etcd", func(ctx context.Context) error { return get(ctx, http.DefaultClient, s.plan.EtcdURL()+"/health") })
}

// Compact makes etcd forget its history up to now, so that old watches cannot be continued.
func (s *Server) Compact() {
	s.tb.Helper()
	var answer struct {
		Header struct {
			Revision string `json:"revision"`
		} `json:"header"`
	}
	s.etcdCall("/v3/maintenance/status", `{}`, &answer)
	s.etcdCall("/v3/kv/compaction", `{"physical": true, "revision": "`+answer.Header.Revision+`"}`, nil)
}

func (s *Server) etcdCall(path, body string, answer any) {
	s.tb.Helper()
	response, err := http.Post(s.plan.EtcdURL()+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, response.Status, data)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(data, answer)
	}
	if err != nil {
		s.tb.Fatal(err)
	}
}

// run starts a binary with its output in a file.
func (s *Server) run(name string, command []string) *process {
	s.tb.Helper()
	p := &process{cmd: exec.Command(command[0], command[1:]...), done: make(chan struct{}), log: filepath.Join(s.dir, name+".log")}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := startLocked(p); err != nil {
		s.tb.Fatalf("start %s: %v", name, err)
	}
	return p
}

// wait tries ask until it succeeds.
func (s *Server) wait(name string, ask func(context.Context) error) {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(s.tb.Context(), patience)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.tb.Fatalf("%s is not ready after %s: %v\n%s", name, patience, err, s.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *Server) tail() string {
	if s.api == nil {
		return ""
	}
	data, err := os.ReadFile(s.api.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}

func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

func get(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return errors.Join(fmt.Errorf("%s: %s", response.Status, body), err)
	}
	return err
}
