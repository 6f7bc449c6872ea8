package speaker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// budget is the longest that a VIP may be without an owner after a fault.
const budget = 3 * time.Second

// rounds is how often each fault is tried; HYTHE_ROUNDS sets it.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("HYTHE_ROUNDS")); err == nil {
		return n
	}
	return 2
}

// report logs the median and the maximum.
func report(t *testing.T, what string, times []time.Duration) {
	slices.Sort(times)
	t.Logf("%s: n=%d median=%v max=%v", what, len(times), times[len(times)/2].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond))
}

// TestFailover breaks the owner in each way, sees the VIP move, repairs it and sees the VIP stay.
func TestFailover(t *testing.T) {
	r := newRig(t, 3, corev1.ServiceExternalTrafficPolicyLocal)
	r.startAll()
	port := func(node string) string { return "p" + strings.TrimPrefix(node, "n") }
	for _, fault := range []struct {
		name         string
		break_, mend func(node string)
	}{
		{
			name:   "agent killed",
			break_: func(n string) { r.signal("speaker", n, syscall.SIGKILL) },
			mend:   func(n string) { r.start("speaker", n) },
		},
		{
			name:   "agent stopped",
			break_: func(n string) { r.signal("speaker", n, syscall.SIGSTOP) },
			mend:   func(n string) { r.signal("speaker", n, syscall.SIGCONT) },
		},
		{
			name:   "backend killed",
			break_: func(n string) { r.signal("backend", n, syscall.SIGKILL) },
			mend:   func(n string) { r.start("backend", n) },
		},
		{
			name:   "backend stopped",
			break_: func(n string) { r.signal("backend", n, syscall.SIGSTOP) },
			mend:   func(n string) { r.signal("backend", n, syscall.SIGCONT) },
		},
		{
			name:   "cable cut",
			break_: func(n string) { r.ip("-n " + r.ns("lan") + " link set " + port(n) + " down") },
			mend:   func(n string) { r.ip("-n " + r.ns("lan") + " link set " + port(n) + " up") },
		},
		{
			name:   "switch port lost",
			break_: func(n string) { r.ip("-n " + r.ns("lan") + " link set " + port(n) + " nomaster") },
			mend:   func(n string) { r.ip("-n " + r.ns("lan") + " link set " + port(n) + " master br0") },
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			r.t = t
			var cold, warm []time.Duration
			for range rounds() {
				owner := r.owner()
				start := time.Now()
				fault.break_(owner)
				next, announced, answered := r.moved(start, owner)
				if announced > budget || answered > budget {
					t.Errorf("moved to %s, announced after %v, answered after %v", next, announced, answered)
				}
				warm, cold = append(warm, announced), append(cold, answered)
				fault.mend(owner)
				r.settles(next)
				r.stays(next, 500*time.Millisecond)
			}
			report(t, fault.name+": announced", warm)
			report(t, fault.name+": answered", cold)
		})
	}
}

// settles waits until only node answers, for at most a second: that is the time two sides have to agree.
func (r *rig) settles(node string) {
	r.t.Helper()
	start := time.Now()
	for time.Since(start) < 5*time.Second {
		begin := time.Now()
		time.Sleep(300 * time.Millisecond)
		only := true
		for _, s := range r.since(begin) {
			only = only && s.node == node
		}
		if only {
			if late := begin.Sub(start); late > 1200*time.Millisecond {
				r.t.Errorf("two nodes answered for %v after the repair", late)
			}
			return
		}
	}
	r.dump()
	r.t.Fatalf("%s is not the only one after the repair", node)
}

// TestTwoNodes cuts one of two nodes off without its knowing: the other one takes the VIP, since its router answers; the
// one that is cut off takes nothing. After the cut is healed the last announcement is that of the one that stays.
func TestTwoNodes(t *testing.T) {
	r := newRig(t, 2, corev1.ServiceExternalTrafficPolicyCluster)
	r.startAll()
	owner := r.owner()
	port := "p" + strings.TrimPrefix(owner, "n")
	start := time.Now()
	r.ip("-n " + r.ns("lan") + " link set " + port + " nomaster")
	next, announced, _ := r.moved(start, owner)
	t.Logf("moved from %s to %s after %v", owner, next, announced.Round(time.Millisecond))
	time.Sleep(time.Second)
	healed := time.Now()
	r.ip("-n " + r.ns("lan") + " link set " + port + " master br0")
	r.settles(next)
	r.stays(next, 6*time.Second)
	last := ""
	for _, s := range r.since(healed) {
		if s.gratuitous {
			last = s.node
		}
	}
	if last != next {
		t.Errorf("the last announcement after the repair is that of %q, not of %s", last, next)
	}

	// Now the other one is cut off: it does not own the VIP, and must not take it.
	r.ip("-n " + r.ns("lan") + " link set " + port + " nomaster")
	time.Sleep(2500 * time.Millisecond)
	data, err := os.ReadFile(filepath.Join(r.data(owner), "debug"))
	if err != nil || !strings.Contains(string(data), "owned=false") || strings.Contains(string(data), "member n") {
		t.Errorf("%s is cut off and says:\n%s", owner, data)
	}
	r.stays(next, 300*time.Millisecond)
}

// TestQuickKill kills the owner's agent and starts it again before anybody noticed: nothing moves.
func TestQuickKill(t *testing.T) {
	r := newRig(t, 2, corev1.ServiceExternalTrafficPolicyLocal)
	r.startAll()
	owner := r.owner()
	start := time.Now()
	r.signal("speaker", owner, syscall.SIGKILL)
	r.start("speaker", owner)
	r.stays(owner, 3*time.Second)
	last, gap := start, time.Duration(0)
	for _, s := range r.since(start) {
		gap, last = max(gap, s.at.Sub(last)), s.at
	}
	t.Logf("longest silence %v", gap.Round(time.Millisecond))
}

// TestRestart restarts the owner's agent in an orderly way: nothing moves.
func TestRestart(t *testing.T) {
	r := newRig(t, 2, corev1.ServiceExternalTrafficPolicyLocal)
	r.startAll()
	owner := r.owner()
	r.signal("speaker", owner, syscall.SIGTERM)
	time.Sleep(2 * time.Second) // longer than silence is death
	stopped := time.Now()
	r.start("speaker", owner)
	if got := r.owner(); got != owner {
		r.dump()
		t.Errorf("the VIP moved from %s to %s over a restart", owner, got)
	}
	for _, s := range r.since(stopped) {
		t.Logf("answers again after %v", s.at.Sub(stopped).Round(time.Millisecond))
		break
	}
}

// TestSwitchedOff ends the owner's agent in an orderly way, and then the whole machine: the others do not wait for it
// as long as it asked them to.
func TestSwitchedOff(t *testing.T) {
	r := newRig(t, 3, corev1.ServiceExternalTrafficPolicyLocal)
	r.startAll()
	owner := r.owner()
	r.signal("speaker", owner, syscall.SIGTERM)
	for i := 1; i <= 3; i++ { // the machine goes on until its kernel has answered: one that never does is not missed
		if node := fmt.Sprintf("n%d", i); node != owner {
			r.debug(node, "held=true answered=true")
		}
	}
	start := time.Now()
	r.signal("backend", owner, syscall.SIGKILL)
	r.ip("-n " + r.ns("lan") + " link set p" + strings.TrimPrefix(owner, "n") + " down")
	next, announced, answered := r.moved(start, owner)
	if announced > budget || answered > budget {
		t.Errorf("moved to %s, announced after %v, answered after %v", next, announced, answered)
	}
	t.Logf("announced by %s after %v", next, announced.Round(time.Millisecond))
}

// TestRelease ends the owner's agent for good: the VIP moves without a moment of silence.
func TestRelease(t *testing.T) {
	r := newRig(t, 2, corev1.ServiceExternalTrafficPolicyLocal)
	for i := 1; i <= 2; i++ {
		r.start("backend", fmt.Sprintf("n%d", i))
		r.start("speaker", fmt.Sprintf("n%d", i), func(c *child) { c.Release = true })
	}
	owner := r.owner()
	start := time.Now()
	r.signal("speaker", owner, syscall.SIGTERM)
	next, announced, _ := r.moved(start, owner)
	r.settles(next)
	last, gap := start, time.Duration(0)
	for _, s := range r.since(start) {
		gap, last = max(gap, s.at.Sub(last)), s.at
	}
	t.Logf("announced by %s after %v, longest silence %v", next, announced.Round(time.Millisecond), gap.Round(time.Millisecond))
	if gap > 300*time.Millisecond {
		t.Errorf("nobody answered for %v", gap)
	}
}

// TestForeignHost gives the VIP to a host that is no node: no node announces it, all say why, and one takes it
// when the host lets go.
func TestForeignHost(t *testing.T) {
	r := newRig(t, 2, corev1.ServiceExternalTrafficPolicyCluster)
	r.host("foreign", 66)
	r.ip("-n " + r.ns("foreign") + " addr add " + rigVIP + "/24 dev eth0")
	start := time.Now()
	r.startAll()
	r.debug("n1", "AddressConflict")
	r.debug("n2", "AddressConflict")
	r.debug("n1", hwOf(66))
	for _, s := range r.since(start) {
		if s.node != hwOf(66) {
			t.Fatalf("%s claims the VIP that a host uses", s.node)
		}
	}
	r.ip("-n " + r.ns("foreign") + " addr del " + rigVIP + "/24 dev eth0")
	owner := r.owner()
	t.Logf("%s took the VIP", owner)

	// Now the host takes it while a node owns it: the node keeps and defends it.
	r.ip("-n " + r.ns("foreign") + " addr add " + rigVIP + "/24 dev eth0")
	r.inForeign("arping -c 2 -A -I eth0 " + rigVIP)
	r.debug(owner, "contested")
	start = time.Now()
	r.inForeign("arping -c 3 -A -I eth0 " + rigVIP)
	defended := 0
	for _, s := range r.since(start) {
		if s.node == owner && s.gratuitous {
			defended++
		}
	}
	if defended > 4 {
		t.Errorf("defended with %d frames within 3 s", defended)
	}
}
