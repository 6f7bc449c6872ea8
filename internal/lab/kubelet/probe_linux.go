package kubelet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/internal/lab/cluster"
	"hythe.dev/hythe/internal/lab/topology"
)

const (
	// firstPeriod is how often a pod is probed that is not ready yet.
	firstPeriod  = 50 * time.Millisecond
	period       = time.Second
	probeTimeout = time.Second
	// notices is how long a kubelet takes to see that a process ended.
	notices = time.Second
	// failures in a row make a ready pod not ready.
	failures = 3
)

// probe reports whether the pod is ready, until ctx is done.
func (r *Running) probe(ctx context.Context, ports [][]corev1.ContainerPort) {
	checks := r.checks(ports)
	var failed int
	var due, deadSince time.Time
	for sleep(ctx, firstPeriod) {
		now := time.Now()
		if !r.running() {
			if deadSince.IsZero() {
				deadSince = now
			}
			if now.Sub(deadSince) >= notices {
				r.report(func(u *Update) { u.Ready, u.Message = false, "a container does not run" })
			}
			due = now
			continue
		}
		deadSince = time.Time{}
		if now.Before(due) {
			continue
		}
		err := r.check(ctx, checks)
		if err == nil {
			failed, due = 0, now.Add(period)
			r.report(func(u *Update) { u.Ready, u.Message = true, "" })
			continue
		}
		failed++
		r.report(func(u *Update) {
			if !u.Ready || failed >= failures {
				u.Ready, u.Message = false, err.Error()
			}
		})
	}
}

// running says whether all containers run.
func (r *Running) running() bool {
	for _, p := range r.Containers() {
		if p.Status().PID == 0 {
			return false
		}
	}
	return true
}

// A check is one probe of a container.
type check struct {
	port uint16
	path string // of a GET; empty for a TCP connection
}

// checks finds what to ask each container: its readinessProbe where it fits, else its first TCP port.
func (r *Running) checks(ports [][]corev1.ContainerPort) []check {
	var out []check
	for i, c := range r.pod.Spec.Containers {
		first := slices.IndexFunc(ports[i], func(p corev1.ContainerPort) bool { return p.Protocol != corev1.ProtocolUDP })
		if first < 0 {
			continue
		}
		chosen := check{port: uint16(ports[i][first].ContainerPort)}
		if p := c.ReadinessProbe; p != nil && p.HTTPGet != nil && p.HTTPGet.Scheme != corev1.URISchemeHTTPS {
			if port, ok := named(ports[i], p.HTTPGet.Port); ok {
				chosen = check{port: port, path: "/" + strings.TrimPrefix(p.HTTPGet.Path, "/")}
			}
		}
		out = append(out, chosen)
	}
	return out
}

func named(ports []corev1.ContainerPort, want intstr.IntOrString) (uint16, bool) {
	for _, p := range ports {
		if want.Type == intstr.Int && p.ContainerPort == want.IntVal || want.Type == intstr.String && p.Name == want.StrVal {
			return uint16(p.ContainerPort), true
		}
	}
	return 0, false
}

// check asks all containers from the pod's node.
func (r *Running) check(ctx context.Context, checks []check) error {
	r.mu.Lock()
	addr := r.update.Address.String()
	r.mu.Unlock()
	node := topology.NamespaceName(r.k.Lab, r.pod.Node)
	for _, c := range checks {
		target := net.JoinHostPort(addr, fmt.Sprint(c.port))
		if err := checkOne(ctx, node, target, c.path); err != nil {
			return err
		}
	}
	return nil
}

func checkOne(ctx context.Context, ns, target, path string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := topology.Dial(ctx, ns, "tcp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	if path == "" {
		return nil
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target+path, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s answers %d", path, resp.StatusCode)
	}
	return nil
}

// adminSocket is the pod's own: two Envoys may be on a node while one replaces the other.
func (r *Running) adminSocket() string {
	return filepath.Join(r.k.Node(r.pod.Node).Run, fmt.Sprintf("envoy-%d.sock", r.pod.Number))
}

// envoyCommand writes the bootstrap of the node's Envoy and returns the command that runs it.
func (r *Running) envoyCommand() ([]string, error) {
	dirs := r.k.Node(r.pod.Node)
	o := envoy.Options{
		Path:          r.k.Envoy,
		BootstrapFile: filepath.Join(dirs.Run, fmt.Sprintf("envoy-%d.yaml", r.pod.Number)),
		Bootstrap: envoy.BootstrapOptions{
			Node: r.pod.Node, XDSSocket: dirs.XDSSocket,
			AdminSocket: r.adminSocket(),
		},
		Concurrency: 1,
	}
	if err := envoy.WriteBootstrap(o); err != nil {
		return nil, err
	}
	return append([]string{o.Path}, envoy.Args(o)...), nil
}

// IsGateway says whether the pod has an Envoy.
func (r *Running) IsGateway() bool {
	return slices.ContainsFunc(r.pod.Spec.Containers, cluster.IsEnvoy)
}
