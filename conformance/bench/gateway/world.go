package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/internal/lab/apiserver"
)

// The addresses of all that runs in the namespace.
const (
	podRange  = "10.244.0.0/16"
	httpPort  = 18080
	httpsPort = 18443
	readyPort = 18081
)

// A world is a real API server, a real gateway and a real Envoy, in the benchmark's network namespace.
//
//	benchmark ── writes ──> kube-apiserver ──> hythe gateway ──(spy)──> Envoy ──> pods, in the benchmark
//	    └───────────────────────── requests ────────────────────────────┘
type world struct {
	programs
	dir       string
	client    *apiserver.Client
	plan      apiserver.Server
	authority *authority
	spy       *spy // between gateway and Envoy; nil for none
	processes []*process

	mu    sync.Mutex
	lines []string // of Envoy's access log, about requests that were not answered by a pod's 200
}

// programs are the paths of what is measured.
type programs struct{ hythe, envoy string }

// newWorld starts all but Envoy, and waits until the gateway has the API server's state.
func newWorld(ctx context.Context, p programs, dir string, accessLog bool) (*world, error) {
	w := &world{programs: p, dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	var err error
	if w.authority, err = newAuthority(); err != nil {
		return nil, err
	}
	if err := w.startAPI(ctx); err != nil {
		return w, err
	}
	command := []string{
		w.hythe, "gateway", "--node", "node1", "--kubeconfig", w.plan.Kubeconfig("gateway"), "--xds-socket", w.socket(), "--class", "hythe",
		"--listen-http", fmt.Sprintf("0.0.0.0:%d", httpPort), "--listen-https", fmt.Sprintf("0.0.0.0:%d", httpsPort),
		"--listen-ready", fmt.Sprintf("0.0.0.0:%d", readyPort), "--envoy-admin", filepath.Join(dir, "admin.sock"),
	}
	if accessLog {
		command = append(command, "--access-log")
	}
	g, err := start(dir, "gateway", nil, command...)
	if err != nil {
		return w, err
	}
	w.processes = append(w.processes, g)
	return w, g.until(ctx, "the gateway", func(context.Context) error { _, err := os.Stat(w.socket()); return err })
}

func (w *world) socket() string { return filepath.Join(w.dir, "xds.sock") }

func (w *world) startAPI(ctx context.Context) error {
	binaries, err := apiserver.Binaries()
	if err != nil {
		return err
	}
	signer, err := apiserver.NewAuthority()
	if err != nil {
		return err
	}
	w.plan = apiserver.Server{
		Dir: w.dir, Binaries: binaries, Address: netip.MustParseAddrPort("127.0.0.1:6443"), EtcdPort: 2379, PeerPort: 2380,
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
	}
	if err := errors.Join(w.plan.WriteKeys(signer), w.plan.Kubeconfigs(signer)); err != nil {
		return err
	}
	if w.client, err = apiserver.NewClient(signer, w.plan.URL(), nil); err != nil {
		return err
	}
	etcd, err := start(w.dir, "etcd", nil, w.plan.Etcd()...)
	if err != nil {
		return err
	}
	w.processes = append(w.processes, etcd)
	err = etcd.until(ctx, "etcd", func(ctx context.Context) error {
		response, err := http.Get(w.plan.EtcdURL() + "/health")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
	if err != nil {
		return err
	}
	api, err := start(w.dir, "kube-apiserver", nil, w.plan.API()...)
	if err != nil {
		return err
	}
	w.processes = append(w.processes, api)
	if err := api.until(ctx, "kube-apiserver", w.client.Ready); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return apiserver.Install(ctx, apiserver.NewStore(w.client))
}

// startEnvoy runs an Envoy that is fed by a socket, and waits until it serves.
func (w *world) startEnvoy(ctx context.Context, name, socket string, ready int) error {
	options := envoy.Options{
		Path: w.envoy, BootstrapFile: filepath.Join(w.dir, name+".yaml"), Concurrency: 2,
		Bootstrap: envoy.BootstrapOptions{Node: "node1", XDSSocket: socket, AdminSocket: filepath.Join(w.dir, name+"-admin.sock")},
	}
	if err := envoy.WriteBootstrap(options); err != nil {
		return err
	}
	p, err := start(w.dir, name, &lineWriter{line: w.note}, append([]string{w.envoy}, envoy.Args(options)...)...)
	if err != nil {
		return err
	}
	w.processes = append(w.processes, p)
	return p.until(ctx, "Envoy", func(ctx context.Context) error {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/ready", ready))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
}

// note keeps a line of Envoy's access log if it tells of a failure:
// [time] "METHOD PATH PROTOCOL" CODE FLAGS ...
func (w *world) note(line string) {
	_, rest, ok := strings.Cut(line, "HTTP/")
	if !ok || len(rest) > 5 && strings.Contains(rest[:min(len(rest), 14)], `" 200 - `) || strings.Contains(line, `" 404 NR `) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) < 10_000 {
		w.lines = append(w.lines, line)
	}
}

// logged are the lines of the access log that name something.
func (w *world) logged(what string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, l := range w.lines {
		if strings.Contains(l, what) {
			out = append(out, l)
		}
	}
	return out
}

// stop ends all processes, the newest first.
func (w *world) stop() {
	if w == nil {
		return
	}
	for i := range w.processes {
		w.processes[len(w.processes)-1-i].stop()
	}
	if w.spy != nil {
		w.spy.stop()
	}
}

// A lineWriter hands out lines.
type lineWriter struct {
	once sync.Once
	pipe *io.PipeWriter
	line func(string)
}

// Write implements io.Writer.
func (l *lineWriter) Write(data []byte) (int, error) {
	l.once.Do(func() {
		r, w := io.Pipe()
		l.pipe = w
		go func() {
			for lines := bufio.NewScanner(r); lines.Scan(); {
				l.line(lines.Text())
			}
			_, _ = io.Copy(io.Discard, r) // a line that was too long
		}()
	})
	return l.pipe.Write(data)
}

// dial connects to Envoy.
func dial(ctx context.Context, port int) (net.Conn, error) {
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}
