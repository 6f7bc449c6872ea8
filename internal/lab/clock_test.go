package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/testenv"
)

// A clocks is a lab under traffic, of processes whose wall clocks the test sets.
type clocks struct {
	*crashes
	clock *testenv.WallClock
}

// TestClock sets the wall clocks of Hythe's processes, of all and of some, while they run and over restarts. Nothing is
// lost, the VIP stays where it is, nobody writes to the kernel, and what changes arrives.
func TestClock(t *testing.T) {
	testenv.Root(t)
	testenv.Envoy(t)
	clock := testenv.NewWallClock(t, "../../cmd/hythe", "../../cmd/hythe-cni")
	c := &clocks{clock: clock}
	c.crashes = newCrashesOf(t, buildWith(t, "-overlay", clock.Overlay()), "clock")
	const day = 24 * time.Hour
	for _, s := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"an hour ahead", func(t *testing.T) { c.jump(t, time.Hour, victims...) }},
		{"a day back", func(t *testing.T) { c.jump(t, -day, victims...) }},
		{"certificates expire", func(t *testing.T) { c.jump(t, 40*365*day, victims...) }},
		{"right again", func(t *testing.T) { c.jump(t, 0, victims...) }},
		{"the owner alone", func(t *testing.T) { c.jump(t, -day, c.owner(t)+"/node", c.owner(t)+"/gateway") }},
		{"the controller alone", func(t *testing.T) { c.jump(t, 2*day, "control/controller") }},
		{"restart a day back", func(t *testing.T) { c.restart(t, -day) }},
		{"restart a day ahead", func(t *testing.T) { c.restart(t, day) }},
		{"right at last", func(t *testing.T) { c.jump(t, 0, victims...) }},
	} {
		t.Run(s.name, s.run)
	}
	c.wantFirst(t)
}

// jump sets the wall clocks of processes.
func (c *clocks) jump(t *testing.T, off time.Duration, processes ...string) {
	owner, at, st := c.owner(t), time.Now(), c.settle(t)
	for _, m := range c.monitors {
		m.take()
	}
	c.clock.Start(t, off) // the CNI plugin's, too
	for _, p := range processes {
		if !strings.HasSuffix(p, "/envoy") { // not written in Go
			c.clock.Set(t, process(st, p).PID, off)
		}
	}
	time.Sleep(1500 * time.Millisecond) // longer than members and ARP wait for anybody
	for node, m := range c.monitors {
		if lines := m.take(); len(lines) > 0 {
			t.Errorf("written to the kernel of %s: %q", node, lines)
		}
	}
	c.wantChanges(t)
	c.wantClock(t, off, processes...)
	c.wantUnmoved(t, owner, at)
}

// restart kills all processes but Envoy, one after another, that come back with another wall clock.
func (c *clocks) restart(t *testing.T, off time.Duration) {
	owner, at := c.owner(t), time.Now()
	beforeFiles := files(t, c.lab)
	c.clock.Start(t, off)
	for _, p := range victims {
		if strings.HasSuffix(p, "/envoy") {
			continue
		}
		pid := process(c.settle(t), p).PID
		if err := c.client.Kill(t.Context(), p, false); err != nil {
			t.Fatal(err)
		}
		c.awaitNew(t, p, pid)
	}
	c.settle(t)
	for _, name := range written(beforeFiles, files(t, c.lab)) {
		if strings.HasSuffix(name, "claims.yaml") || strings.HasSuffix(name, "seen.yaml") {
			t.Errorf("file %s was written", name)
		}
	}
	c.wantChanges(t)
	c.wantClock(t, off, victims...)
	c.wantUnmoved(t, owner, at)
}

// wantChanges wants a new pod, and its endpoint, to come and go.
func (c *clocks) wantChanges(t *testing.T) {
	t.Helper()
	c.scale(t, 0, 1)
	c.awaitSoon(t, 1)
	c.answered(t, time.Now())
	c.scale(t, 1, 0)
	c.awaitSoon(t, 0)
}

// wantClock sees that processes did get another clock: they note when they had their last Snapshot.
func (c *clocks) wantClock(t *testing.T, off time.Duration, processes ...string) {
	t.Helper()
	for _, p := range processes {
		if strings.HasSuffix(p, "/envoy") {
			continue
		}
		cluster, err := inspect.Open(t.Context(), []string{"unix:" + c.lab.Admin(p)})
		if err != nil {
			t.Fatal(err)
		}
		if wrong := time.Since(cluster.Processes[0].Snapshot.Add(-off)); wrong < -time.Second || wrong > time.Minute {
			t.Errorf("%s, whose clock is %s off, says that it had its last Snapshot at %s", p, off, cluster.Processes[0].Snapshot)
		}
	}
}

// wantUnmoved wants no request lost, and the VIP where it was, announced by nobody else.
func (c *clocks) wantUnmoved(t *testing.T, owner string, at time.Time) {
	t.Helper()
	answered, lost := 0, ""
	for _, s := range c.traffic.streams {
		good, bad := s.since(at)
		answered += len(good)
		if len(bad) > 0 {
			lost += fmt.Sprintf("\n%s: %d lost%s", s.name, len(bad), first(bad))
		}
	}
	t.Logf("VIP on %s, %d requests answered in %s", owner, answered, time.Since(at).Round(time.Millisecond))
	if s := c.stalls.longest(at); s > stallLimit {
		t.Logf("not judged: the machine stood still for %s%s", s, lost)
		return
	}
	if lost != "" {
		t.Error(lost)
	}
	if is := c.owner(t); is != owner {
		t.Errorf("the VIP moved from %s to %s", owner, is)
	}
	for _, n := range topology.Build("").Nodes {
		if n.Name != owner && slices.Contains(c.traffic.arp.since(at), n.MAC.String()) {
			t.Errorf("%s announced the VIP, which is on %s", n.Name, owner)
		}
	}
}
