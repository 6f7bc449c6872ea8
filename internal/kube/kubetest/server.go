package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// patience is how long a server may take to start or stop.
const patience = 90 * time.Second

// A Server is an etcd and a kube-apiserver. Its address and data stay over Stop and Start.
type Server struct {
	tb        testing.TB
	dir       string
	authority *authority
	binaries  string
	etcd, api *process
	etcdPort  int
	peerPort  int
	apiPort   int
	client    *http.Client
}

// A process is one running binary.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

// Start runs a server until the end of the test. Without HYTHE_API=1 it skips the test: building the server takes
// minutes, and so make test is the same on each machine. make test-api sets it.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{tb: tb, dir: tb.TempDir(), binaries: binaries(tb)}
	var err error
	if s.authority, err = newAuthority(); err != nil {
		tb.Fatal(err)
	}
	if err := s.authority.write(s.dir); err != nil {
		tb.Fatal(err)
	}
	for _, port := range []*int{&s.etcdPort, &s.peerPort, &s.apiPort} {
		if *port, err = freePort(); err != nil {
			tb.Fatal(err)
		}
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
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	dir := filepath.Join(cache, "hythe", "bin")
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			tb.Fatalf("needs %s: build it with scripts/apiserver.sh build", name)
		}
	}
	return dir
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Config is for an administrator.
func (s *Server) Config() *rest.Config { return s.ConfigFor("admin", "system:masters") }

// ConfigFor is for a user of some groups.
func (s *Server) ConfigFor(user string, groups ...string) *rest.Config {
	s.tb.Helper()
	chain, key, err := s.authority.issue(user, groups...)
	if err != nil {
		s.tb.Fatal(err)
	}
	return &rest.Config{
		Host:            "https://" + s.Addr(),
		TLSClientConfig: rest.TLSClientConfig{CAData: s.authority.pem, CertData: chain, KeyData: key},
		QPS:             -1,
	}
}

// Kubeconfig writes a kubeconfig file for a user of some groups and returns its path.
func (s *Server) Kubeconfig(user string, groups ...string) string {
	s.tb.Helper()
	c := s.ConfigFor(user, groups...)
	data, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"contexts": []any{map[string]any{"name": "test", "context": map[string]any{"cluster": "test", "user": user}}},
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{
			"server": c.Host, "certificate-authority-data": c.CAData}}},
		"users": []any{map[string]any{"name": user, "user": map[string]any{
			"client-certificate-data": c.CertData, "client-key-data": c.KeyData}}},
	})
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
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.apiPort) }

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
	file := func(name string) string { return filepath.Join(s.dir, name) }
	s.api = s.run("kube-apiserver",
		"--etcd-servers="+s.etcdURL(), "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", s.apiPort),
		"--advertise-address=127.0.0.1", "--tls-cert-file="+file("server.crt"), "--tls-private-key-file="+file("server.key"),
		"--client-ca-file="+file("ca.crt"), "--service-account-issuer=https://kubetest",
		"--service-account-key-file="+file("accounts.key"), "--service-account-signing-key-file="+file("accounts.key"),
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--service-cluster-ip-range=10.96.0.0/16",
		"--endpoint-reconciler-type=none", "--profiling=false", "--shutdown-delay-duration=0s", "--shutdown-watch-termination-grace-period=2s", "--event-ttl=10m",
	)
	client, err := rest.HTTPClientFor(s.Config())
	if err != nil {
		s.tb.Fatal(err)
	}
	defer client.CloseIdleConnections()
	s.wait("kube-apiserver", func(ctx context.Context) error {
		select {
		case <-s.api.done:
			s.tb.Fatalf("kube-apiserver ended:\n%s", s.tail())
		default:
		}
		return get(ctx, client, "https://"+s.Addr()+"/readyz")
	})
}

func (s *Server) etcdURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.etcdPort) }

func (s *Server) startEtcd() {
	s.tb.Helper()
	peer := fmt.Sprintf("http://127.0.0.1:%d", s.peerPort)
	s.etcd = s.run("etcd", "--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync", "--logger=zap", "--log-level=error",
		"--listen-client-urls="+s.etcdURL(), "--advertise-client-urls="+s.etcdURL(),
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	s.wait("etcd", func(ctx context.Context) error { return get(ctx, http.DefaultClient, s.etcdURL()+"/health") })
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
	response, err := http.Post(s.etcdURL()+path, "application/json", strings.NewReader(body))
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
func (s *Server) run(name string, args ...string) *process {
	s.tb.Helper()
	p := &process{cmd: exec.Command(filepath.Join(s.binaries, name), args...), done: make(chan struct{}), log: filepath.Join(s.dir, name+".log")}
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
