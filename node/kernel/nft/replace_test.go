package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// traffic asks without rest until stop, which returns what went wrong and how often it was asked.
func (h host) traffic(addr string, port int) (stop func() (asked int, errs []error)) {
	var work sync.WaitGroup
	done, asked := make(chan struct{}), 0
	var errs []error
	work.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			asked++
			if _, _, err := h.ask("tcp", addr, port); err != nil {
				errs = append(errs, err)
			}
		}
	})
	return func() (int, []error) {
		close(done)
		work.Wait()
		return asked, errs
	}
}

// TestReplaceUnderTraffic: an agent replaces the table of another version while clients connect. None of them meets half of a table, and what is
// connected goes on; also where the kernel refuses elements of the new one.
func TestReplaceUnderTraffic(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		n.a.hold(at.a)
		for name, bads := range map[string][]int{"whole": nil, "refused": {0, 1700, 2999}} {
			t.Run(name, func(t *testing.T) {
				services := snapshot(at)
				of(services, onlyA).Spec.LoadBalancerSourceRanges = []string{at.client + "/" + fmt.Sprint(at.bits)}
				state, _ := proxy.Build(services, "one", proxy.DefaultSettings())
				for i := range 3000 { // so that it takes a while
					f := proxy.Frontend{Addr: netip.AddrFrom4([4]byte{10, 97, byte(i >> 8), byte(i)}), Protocol: proxy.TCP, Port: 80}
					eps := endpoints("10.250.0.1", 3)
					state.Frontends[f] = proxy.Backends{Outside: eps, Inside: eps}
					for _, b := range bads {
						if b == i {
							state.Frontends[f] = bad()
						}
					}
				}
				held := endpoints(at.a, 1)
				held[0] = netip.AddrPortFrom(held[0].Addr(), 9090)
				vip, ip := fmt.Sprintf(at.vip, clusterPolicy), fmt.Sprintf(at.service, clusterPolicy)
				state.Frontends[proxy.Frontend{Addr: netip.MustParseAddr(vip), Protocol: proxy.TCP, Port: 9090}] = proxy.Backends{Outside: held, Inside: held}
				good := state.Own()
				for f, b := range good.Frontends {
					if len(b.Outside) == 1 && f.Addr.Is4() && b.Outside[0].Addr().Is6() {
						delete(good.Frontends, f)
					}
				}
				netns := InNetNS(int(n.node.ns))
				outdated(t, good, netns)
				s := n.client.stream(vip, 9090)
				for range 3 {
					outdated(t, good, netns)
					stops := []func() (int, []error){n.client.traffic(vip, 80), n.client.traffic(at.node, 30080+clusterPolicy), n.b.traffic(ip, 80),
						n.client.traffic(fmt.Sprintf(at.vip, onlyA), 80)}
					table := testTable(t, netns, WithoutOwner())
					time.Sleep(20 * time.Millisecond) // some requests before
					if err := table.Set(t.Context(), state); (err != nil) != (bads != nil) || err != nil && !errors.Is(err, unix.EINVAL) {
						t.Errorf("Set: %v", err)
					}
					time.Sleep(20 * time.Millisecond) // and after
					for _, stop := range stops {
						if asked, errs := stop(); len(errs) > 0 || asked < 10 {
							t.Errorf("of %d connections %d failed: %v", asked, len(errs), errors.Join(errs...))
						}
					}
					if n := value(table.metrics.rebuilds); n == 0 {
						t.Error("the table was not replaced")
					}
					if n := len(table.Problems("one")); n != len(bads) {
						t.Errorf("%d Problems", n)
					}
					s.T = t
					s.goesOn()
					_ = table.Close()
				}
			})
		}
	})
}

// TestInterimIsTakenAway: an agent was killed while it replaced a table of a kernel without owners. The next one takes away what served
// meanwhile, and so does who removes all.
func TestInterimIsTakenAway(t *testing.T) {
	testenv.NetNS(t)
	state := services(10)
	left := func() bool {
		t.Helper()
		c, err := nfnetlink.Dial(0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		there, err := c.Has(unix.NFPROTO_INET, nfnetlink.InterimName, "")
		if err != nil {
			t.Fatal(err)
		}
		return there
	}
	killed := func() {
		t.Helper()
		table := testTable(t, WithoutOwner())
		set1(t, table, state)
		sets, chains := ruleset.Interim(0)
		if err := table.conn.Batch(nfnetlink.Retable(append(sets, chains...), nfnetlink.InterimName)); err != nil || !left() {
			t.Fatal(err)
		}
		_ = table.Close()
	}
	killed()
	next := testTable(t, WithoutOwner())
	if check(t, state); left() { // it may wait for long until it knows what is wanted
		t.Error("the next agent leaves it at its start")
	}
	set1(t, next, state)
	check(t, state)
	killed()
	if err := Remove(); err != nil || left() {
		t.Error("who removes all leaves it", err)
	}
}

// TestOneNodePortOfTwo: two Services claim one NodePort. The older one has it, its packets reach nobody else, and the other one gets it when
// the older is gone.
func TestOneNodePortOfTwo(t *testing.T) {
	eachFamily(t, func(t *testing.T, at addresses, n topology) {
		s := snapshot(at)
		older, newer := of(s, onlyA), of(s, localAway) // endpoints: a; remote
		newer.Spec.ExternalTrafficPolicy = ""
		for svc, age := range map[*corev1.Service]time.Duration{older: 2 * time.Hour, newer: time.Hour} {
			svc.CreationTimestamp = metav1.NewTime(time.Unix(1e9, 0).Add(-age))
			svc.Spec.Ports[0].NodePort = 30333
		}
		table := testTable(t, InNetNS(int(n.node.ns)))
		set := func(want ...string) {
			t.Helper()
			state, problems := proxy.Build(s, "one", proxy.DefaultSettings())
			var got []string
			for _, p := range problems {
				got = append(got, p.Object.String()+" "+p.Reason)
			}
			if strings.Join(got, ", ") != strings.Join(want, ", ") {
				t.Errorf("Problems: %q, want %q", got, want)
			}
			set1(t, table, state)
		}
		set("Service " + model.Key{Namespace: newer.Namespace, Name: newer.Name}.String() + " FrontendConflict")
		for from, h := range map[string]host{at.client: n.client, at.b: n.b, at.node: n.node} {
			h.answers("tcp", at.node, 30333, map[string]string{"a": from})
		}
		// The newer one has all else that it asked for.
		n.client.answers("tcp", fmt.Sprintf(at.vip, localAway), 80, map[string]string{"remote": at.overlay})
		s.Services = s.Services.Without(model.Key{Namespace: older.Namespace, Name: older.Name})
		set()
		n.client.answers("tcp", at.node, 30333, map[string]string{"remote": at.overlay})
	})
}
