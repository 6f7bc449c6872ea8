package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/lb"
)

// A readers is a manifests and a state folder with a controller and two gateways that read them.
type readers struct {
	t                *testing.T
	manifests, state string
	controller       *controller
	gateways         [2]*run.Latest[*model.Snapshot]
	stop             func()
}

func newReaders(t *testing.T) *readers {
	r := &readers{t: t, manifests: t.TempDir(), state: t.TempDir()}
	t.Cleanup(func() { r.stop() })
	return r
}

// start starts all of them, as after a power cut.
func (r *readers) start() {
	log := slog.New(slog.NewTextHandler(r.t.Output(), nil))
	c := &controller{settings: lb.Settings{WithoutClass: true}}
	c.log, c.state = log, r.state
	c.readSeen()
	r.controller = c
	ctx, cancel := context.WithCancel(context.Background())
	handlers := []func(*model.Snapshot){func(s *model.Snapshot) {
		if err := c.set(ctx, s); err != nil {
			r.t.Error(err)
		}
	}}
	for i := range r.gateways {
		r.gateways[i] = run.NewLatest[*model.Snapshot]()
		handlers = append(handlers, r.gateways[i].Put)
	}
	done := make(chan error, len(handlers))
	for _, handle := range handlers {
		go func() { done <- kube.NewFiles(r.manifests, r.state, log).Run(ctx, handle) }()
	}
	r.stop = func() {
		cancel()
		for range handlers {
			if err := <-done; err != nil {
				r.t.Error(err)
			}
		}
		r.stop = func() {}
	}
}

func (r *readers) put(name, text string) {
	r.t.Helper()
	if err := atomicfile.WriteUnsynced(filepath.Join(r.manifests, name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// await waits until both gateways give the path of a host to a Service, and tell each of the losers of it. Meanwhile the
// path may be before's, and nobody else's.
func (r *readers) await(before, service string, losers ...string) {
	r.t.Helper()
	for i, g := range r.gateways {
		for deadline := time.After(20 * time.Second); ; {
			select {
			case <-deadline:
				r.t.Fatalf("gateway %d: the host is not that of Service %q with losers %q", i+1, service, losers)
			case <-g.Ready():
			}
			s, ok := g.Take()
			if !ok {
				continue
			}
			config, problems := gateway.Build(s, gateway.Settings{WithoutClass: true})
			text := config.String()
			has := func(name string) bool { return strings.Contains(text, "default/"+name+":") }
			told := 0
			for _, p := range problems {
				for _, loser := range losers {
					if p.Object == model.Ref("Ingress", model.Key{Namespace: "default", Name: loser}) && p.Reason == "PathConflict" {
						told++
					}
				}
			}
			if has(service) && told == len(losers) {
				break
			}
			for _, other := range []string{"a", "m", "z"} {
				if other != service && other != before && has(other) {
					r.t.Errorf("gateway %d gives the host to %s on the way from %q to %s:\n%s%v", i+1, other, before, service, text, problems)
				}
			}
		}
	}
}

const wants = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %[1]s}
spec:
  rules:
  - host: www.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: %[1]s, port: {number: 80}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: 80}]}
`

// TestIncumbent: a host stays with the Ingress that has it, on all gateways and over restarts, until that is deleted.
func TestIncumbent(t *testing.T) {
	r := newReaders(t)
	r.put("z.yaml", fmt.Sprintf(wants, "z"))
	r.start()
	r.await("", "z")
	r.awaitSeen("z", true)
	r.put("m.yaml", fmt.Sprintf(wants, "m"))
	r.await("z", "z", "m")
	r.awaitSeen("m", true)
	r.put("a.yaml", fmt.Sprintf(wants, "a"))
	r.await("z", "z", "a", "m")
	r.awaitSeen("a", true)
	r.stop()
	r.start()
	r.await("", "z", "a", "m")
	if err := os.Remove(filepath.Join(r.manifests, "z.yaml")); err != nil {
		t.Fatal(err)
	}
	r.await("z", "m", "a")
	r.awaitSeen("z", false)
	r.put("z.yaml", fmt.Sprintf(wants, "z"))
	r.await("m", "m", "a", "z")
}

// awaitSeen waits until the controller noted an Ingress, or forgot it.
func (r *readers) awaitSeen(name string, noted bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if data, err := os.ReadFile(filepath.Join(r.state, "seen.yaml")); err == nil && strings.Contains(string(data), "Ingress.default."+name+":") == noted {
			return
		}
	}
	r.t.Fatalf("Ingress %s is not as it should be in seen.yaml, where noted should be %v", name, noted)
}

// TestIncumbentAddress: neither a pool nor a Service takes an address over by its name.
func TestIncumbentAddress(t *testing.T) {
	r := newReaders(t)
	object := func(kind, name, spec string) {
		version := map[string]string{"Service": "v1", "AddressPool": "hythe.dev/v1alpha1"}[kind]
		r.put(kind+name+".yaml", fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nspec: %s\n", version, kind, name, spec))
	}
	ask := "{type: LoadBalancer, loadBalancerIP: 192.0.2.10, ports: [{port: 80}]}"
	object("AddressPool", "z", "{addresses: [192.0.2.0/24]}")
	object("Service", "z", ask)
	r.start()
	r.awaitClaim("192.0.2.10", "z", "z")
	object("AddressPool", "a", "{addresses: [192.0.2.0/25], priority: 100}")
	object("Service", "a", ask)
	object("Service", "b", "{type: LoadBalancer, ports: [{port: 80}]}")
	r.awaitClaim("192.0.2.11", "b", "z")
	r.awaitClaim("192.0.2.10", "z", "z")
	r.stop()
	r.start()
	object("Service", "c", "{type: LoadBalancer, ports: [{port: 80}]}")
	r.awaitClaim("192.0.2.12", "c", "z")
	r.awaitClaim("192.0.2.10", "z", "z")
}

// awaitClaim waits until an address is claimed for a Service, out of a pool.
func (r *readers) awaitClaim(address, service, pool string) {
	r.t.Helper()
	var state lb.State
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		state = r.controller.last()
		for _, c := range state.Claims {
			if c.Spec.Address == netip.MustParseAddr(address).String() && c.Spec.Services[0].Name == service && c.Spec.Pool == pool {
				return
			}
		}
	}
	r.t.Fatalf("%s is not Service %s's, of pool %s:\n%s", address, service, pool, state)
}

// TestLostSeen: the controller starts with no note of who was first, or one that it cannot read. A newcomer takes nothing by
// its name from those that hold something, people are told as long as the process lives, and what is left of the note stays.
func TestLostSeen(t *testing.T) {
	for name, broken := range map[string]string{
		"gone":   "",
		"broken": "data: [",
		"a part": "data: {Ingress.default.z: yesterday}",
	} {
		t.Run(name, func(t *testing.T) {
			r := newReaders(t)
			r.put("z.yaml", fmt.Sprintf(wants, "z"))
			r.put("a.yaml", fmt.Sprintf(wants, "a"))
			note := filepath.Join(r.state, "seen.yaml")
			write := func(path, text string) {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write(filepath.Join(r.state, kube.StatusFile), "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: z, namespace: default}\n"+
				"status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}\n")
			if broken != "" {
				write(note, broken)
			}
			r.start()
			r.await("", "z", "a")
			r.awaitSeen("a", true)
			told := slices.ContainsFunc(r.controller.problems(), func(p model.Problem) bool {
				return p.Object.Name == note && p.Reason == "OrderLost"
			})
			if !told {
				t.Errorf("nobody is told: %v", r.controller.problems())
			}
			if kept, err := os.ReadFile(note + ".broken"); string(kept) != broken || (err == nil) != (broken != "") {
				t.Errorf("kept aside is %q (error %v), want %q", kept, err, broken)
			}
		})
	}
}

// TestFirstStart: a state folder in which nothing was ever written is no loss.
func TestFirstStart(t *testing.T) {
	c := &controller{}
	c.log, c.state = slog.New(slog.DiscardHandler), t.TempDir()
	c.readSeen()
	if all := c.problems(); len(all) > 0 {
		t.Errorf("there are Problems: %v", all)
	}
}

// TestStateNotWritten: people are told which file cannot be written, in the same words each time, until it can be.
func TestStateNotWritten(t *testing.T) {
	c := &controller{}
	c.log, c.state = slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), "state")
	c.readSeen()
	set := func() error { return c.set(t.Context(), &model.Snapshot{}) }
	var before []model.Problem
	for range 2 {
		if err := set(); err == nil {
			t.Error("no error: it would not be tried again")
		}
		is := c.problems()
		if len(is) != 1 || is[0].Object.Name != filepath.Join(c.state, "claims.yaml") || is[0].Reason != "NotWritten" {
			t.Errorf("the Problems are %v", is)
		}
		if before != nil && !slices.Equal(is, before) {
			t.Errorf("the same is told in other words: %v, %v", before, is)
		}
		before = is
	}
	if err := os.Mkdir(c.state, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := set(); err != nil || len(c.problems()) > 0 {
		t.Errorf("it can be written: error %v, Problems %v", err, c.problems())
	}
}
