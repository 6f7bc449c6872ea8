package probe

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/lb"
)

var (
	vip = netip.MustParseAddr("203.0.113.1")
	one = lb.Target{AddrPort: netip.MustParseAddrPort("10.0.0.1:80")}
	two = lb.Target{AddrPort: netip.MustParseAddrPort("10.0.0.1:443")}
)

// TestThresholds follows a backend that dies, hangs and comes back, by the clock.
func TestThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		p := New(Options{})
		var mode atomic.Value
		mode.Store("good")
		var failures atomic.Int32 // how many attempts are yet to fail
		p.attempt = func(ctx context.Context, _ lb.Target) error {
			if failures.Add(-1) >= 0 {
				return errors.New("reset")
			}
			switch mode.Load() {
			case "refused":
				return errors.New("refused")
			case "hangs":
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		p.Set(map[netip.Addr][]lb.Probe{vip: {{Pod: one.AddrPort.Addr(), Targets: []lb.Target{one, two}}}})
		if p.Healthy(vip) || p.Settled() {
			t.Error("healthy before it was tried")
		}
		go func() { _ = p.Run(ctx) }()
		// after says how long it takes until Healthy is want, in the worst phase.
		after := func(state string, want bool, limit time.Duration) {
			t.Helper()
			mode.Store(state)
			begin := time.Now()
			for p.Healthy(vip) != want {
				time.Sleep(10 * time.Millisecond)
				if time.Since(begin) > limit {
					t.Fatalf("%s: healthy is still %t after %v", state, !want, limit)
				}
			}
		}
		after("good", true, 10*time.Millisecond)
		if !p.Settled() {
			t.Error("not settled after an answer")
		}
		for phase := time.Duration(0); phase < 200*time.Millisecond; phase += 30 * time.Millisecond {
			time.Sleep(phase)
			after("refused", false, 420*time.Millisecond)
			after("good", true, 220*time.Millisecond)
			time.Sleep(phase)
			after("hangs", false, 920*time.Millisecond)
			after("good", true, 570*time.Millisecond)
		}
		// One failure is none.
		failures.Store(1)
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			if !p.Healthy(vip) {
				t.Error("one failure was enough")
				break
			}
		}
		if failures.Load() > 0 {
			t.Error("there was no failure")
		}
		p.Set(nil)
		if p.Healthy(vip) {
			t.Error("healthy without a pod")
		}
		stop()
		synctest.Wait()
	})
}

// TestPods checks that one working pod is enough, and all its targets are needed.
func TestPods(t *testing.T) {
	p := New(Options{Failures: 1})
	other := lb.Target{AddrPort: netip.MustParseAddrPort("10.0.0.2:80")}
	p.Set(map[netip.Addr][]lb.Probe{vip: {{Targets: []lb.Target{one, two}}, {Targets: []lb.Target{other}}}})
	record := func(target lb.Target, err error) { p.record(p.targets[target], err) }
	bad := errors.New("bad")
	record(one, nil)
	if p.Healthy(vip) {
		t.Error("half a pod is enough")
	}
	record(two, nil)
	if !p.Healthy(vip) {
		t.Error("a whole pod is not enough")
	}
	record(one, bad)
	record(other, nil)
	if !p.Healthy(vip) {
		t.Error("the other pod is not enough")
	}
	p.Set(map[netip.Addr][]lb.Probe{vip: {{Targets: nil}}})
	if !p.Healthy(vip) {
		t.Error("a pod that cannot be asked counts as dead")
	}
}

// TestAttempt asks real servers.
func TestAttempt(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ready":
		case "/moved":
			http.Redirect(w, r, "/ready", http.StatusFound)
		default:
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	closed := testenv.FreeAddress(t)
	at := netip.MustParseAddrPort(server.Listener.Addr().String())
	for name, c := range map[string]struct {
		target lb.Target
		good   bool
	}{
		"tcp":         {lb.Target{AddrPort: at}, true},
		"http":        {lb.Target{AddrPort: at, Path: "/ready"}, true},
		"not ready":   {lb.Target{AddrPort: at, Path: "/"}, false},
		"redirect":    {lb.Target{AddrPort: at, Path: "/moved"}, false},
		"closed":      {lb.Target{AddrPort: closed}, false},
		"closed http": {lb.Target{AddrPort: closed, Path: "/ready"}, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := attempt(ctx, c.target); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

// TestReplaced has a pod replaced by another one that nobody has asked yet: a VIP is not given up for that, but it is
// when the new pod turns out not to work.
func TestReplaced(t *testing.T) {
	for _, works := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			other := lb.Target{AddrPort: netip.MustParseAddrPort("10.0.0.2:80")}
			p := New(Options{})
			p.attempt = func(_ context.Context, target lb.Target) error {
				if target == other && !works {
					return errors.New("refused")
				}
				return nil
			}
			go func() { _ = p.Run(ctx) }()
			p.Set(map[netip.Addr][]lb.Probe{vip: {{Pod: one.AddrPort.Addr(), Targets: []lb.Target{one}}}})
			time.Sleep(time.Second)
			for range 2 { // a snapshot more changes nothing
				p.Set(map[netip.Addr][]lb.Probe{vip: {{Pod: other.AddrPort.Addr(), Targets: []lb.Target{other}}}})
				if !p.Healthy(vip) {
					t.Error("not healthy as soon as the pod is replaced")
				}
			}
			time.Sleep(time.Second)
			if p.Healthy(vip) != works {
				t.Errorf("healthy is %t when the new pod was asked, works %t", p.Healthy(vip), works)
			}
			p.Set(map[netip.Addr][]lb.Probe{vip: nil})
			if p.Healthy(vip) {
				t.Error("healthy without a pod")
			}
			stop()
			synctest.Wait()
		})
	}
}
