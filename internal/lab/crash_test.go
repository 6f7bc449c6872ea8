package lab_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/demo"
	"hythe.dev/hythe/internal/lab/load"
)

// The processes that are killed.
var victims = []string{
	"control/controller", "node1/gateway", "node2/gateway", "node1/node", "node2/node", "node3/node", "node1/envoy", "node2/envoy",
}

const (
	// spread is the time within which the processes of one round are killed.
	spread = 500 * time.Millisecond
	// downLimit is how long one is kept down at most, but for Envoy, which is started again at once.
	downLimit = 1500 * time.Millisecond
	// noticed is a little longer than the lab's kubelet takes to see that a container was away.
	noticed = 1200 * time.Millisecond
	// settleLimit bounds the time until all is well again.
	settleLimit = 30 * time.Second
	// announceLimit is for three changes of hands, each with six announcements of two frames.
	announceLimit = 36
	// outageLimit is how long the VIP may be without an answer.
	outageLimit = 3 * time.Second
)

// A crashes is a running lab under traffic.
type crashes struct {
	lab      lab.Lab
	client   *lab.Client
	failover *demo.Failover
	traffic  *traffic
	monitors map[string]*monitor
	stalls   *stallMeter
	random   *rand.Rand
	seed     uint64
	first    map[string]string // the kernels before the first crash
	rounds   []outcome
	notes    []string // of what is tried besides rounds
}

// An outcome is what one round was like.
type outcome struct {
	killed       []string
	owner        string // of the VIP, before
	moved        bool
	requests     int // through the VIP, and of them
	lost         int
	inside       int // past Envoy, and of them
	insideLost   int
	outage       time.Duration
	settled      time.Duration
	kernelWrites []string
	fileWrites   []string
	xds          float64 // resources sent by gateways that were killed
	announced    int
}

// newCrashes starts a lab of a copy of the examples, and traffic.
func newCrashes(t *testing.T, name string) *crashes {
	t.Helper()
	return newCrashesOf(t, build(t), name)
}

func newCrashesOf(t *testing.T, hythe, name string) *crashes {
	t.Helper()
	l := open(t, name)
	if err := os.CopyFS(l.Manifests(), os.DirFS("../../examples")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(hythe, "lab", "up", "--name", l.Name, "--dir", l.Dir, "--manifests", l.Manifests(), "--fill").CombinedOutput()
	if err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CRASH_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CRASH_SEED=%d", seed)
	c := &crashes{lab: l, client: l.Client(), seed: seed, stalls: newStallMeter(t), random: rand.New(rand.NewPCG(seed, 0))}
	st := c.settle(t)
	c.failover = demo.NewFailover(l, netip.MustParseAddr(st.VIPs[0].Address))
	c.first = kernels(t, l)
	c.monitors = monitors(t, l)
	c.traffic = startTraffic(t, l, st)
	c.answered(t, time.Now())
	return c
}

// settle waits until the lab is as it should be.
func (c *crashes) settle(t *testing.T) lab.Status {
	t.Helper()
	last := "no answer"
	for deadline := time.Now().Add(settleLimit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		st, err := c.client.Status(t.Context())
		if err == nil && len(st.Waiting) == 0 {
			return st
		}
		if err == nil {
			last = strings.Join(st.Waiting, "; ")
		}
	}
	t.Fatalf("the lab is not settled: %s", last)
	return lab.Status{}
}

// envoys returns the process of each node's Envoy.
func (c *crashes) envoys(t *testing.T) map[string]int {
	t.Helper()
	st, err := c.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, p := range st.Pods {
		if p.Owner == "envoy" && len(p.Containers) == 1 {
			out[p.Node] = p.Containers[0].PID
		}
	}
	return out
}

// awaitEnvoys waits until Envoys that were killed run again, and for as long as a kubelet takes to see that one was away.
func (c *crashes) awaitEnvoys(t *testing.T, killed []string, before map[string]int) {
	t.Helper()
	for _, p := range killed {
		node, isEnvoy := strings.CutSuffix(p, "/envoy")
		if !isEnvoy {
			continue
		}
		deadline := time.Now().Add(settleLimit)
		for now := before[node]; now == before[node] || now == 0; now = c.envoys(t)[node] {
			if time.Now().After(deadline) {
				t.Fatalf("Envoy of %s was not started again", node)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if (outcome{killed: killed}).withEnvoy() {
		time.Sleep(noticed)
	}
}

// answered waits until each stream had an answer since a moment.
func (c *crashes) answered(t *testing.T, since time.Time) {
	t.Helper()
	waits := ""
	for deadline := time.Now().Add(settleLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		waits = ""
		for _, s := range c.traffic.streams {
			if ok, lost := s.since(since); len(ok) < 3 {
				waits += "\n" + s.name + first(lost)
			}
		}
		if waits == "" {
			return
		}
	}
	t.Fatalf("no answers to %s", waits)
}

func (c *crashes) owner(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		owner, err := c.failover.Owner(ctx)
		if err == nil || ctx.Err() != nil {
			if err != nil {
				t.Error(err)
			}
			return owner
		}
	}
}

// choose takes each process alone first, then any of them together.
func (c *crashes) choose(round int) []string {
	if round < len(victims) {
		return []string{victims[round]}
	}
	var out []string
	for _, v := range victims {
		if c.random.IntN(3) == 0 {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		out = append(out, victims[c.random.IntN(len(victims))])
	}
	c.random.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// crash kills processes at random moments, and starts them again after random times.
func (c *crashes) crash(t *testing.T, killed []string) {
	t.Helper()
	type order struct {
		at      time.Duration
		process string
		start   bool
	}
	var orders []order
	for _, p := range killed {
		at := time.Duration(c.random.Int64N(int64(spread)))
		orders = append(orders, order{at, p, false})
		if !strings.HasSuffix(p, "/envoy") {
			orders = append(orders, order{at + time.Duration(c.random.Int64N(int64(downLimit))), p, true})
		}
	}
	slices.SortFunc(orders, func(a, b order) int { return int(a.at - b.at) })
	began := time.Now()
	for _, o := range orders {
		time.Sleep(time.Until(began.Add(o.at)))
		var err error
		if o.start {
			err = c.client.Start(t.Context(), o.process)
		} else {
			err = c.client.Kill(t.Context(), o.process, !strings.HasSuffix(o.process, "/envoy"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// round lets processes crash and judges what that cost.
func (c *crashes) round(t *testing.T, killed []string) {
	t.Helper()
	c.settle(t)
	owner := c.owner(t)
	before, beforeFiles := kernels(t, c.lab), files(t, c.lab)
	for _, m := range c.monitors {
		m.take()
	}
	envoys := c.envoys(t)
	at := time.Now()
	c.crash(t, killed)
	dead := time.Now()
	c.awaitEnvoys(t, killed, envoys)
	c.settle(t)
	out := outcome{killed: killed, owner: owner, settled: time.Since(dead)}
	c.answered(t, time.Now())
	time.Sleep(300 * time.Millisecond) // what is written late shows
	out.moved = c.owner(t) != owner
	after := kernels(t, c.lab)
	for _, n := range nodeNames {
		for _, line := range c.monitors[n].take() {
			out.kernelWrites = append(out.kernelWrites, n+": "+line)
		}
	}
	out.fileWrites = written(beforeFiles, files(t, c.lab))
	out.announced = len(c.traffic.arp.since(at))
	out.outage = c.traffic.vip.outage(at, time.Now())
	answered, lost := c.traffic.vip.since(at)
	out.requests, out.lost = len(answered)+len(lost), len(lost)
	for _, s := range c.traffic.inside {
		answered, lost := s.since(at)
		out.inside, out.insideLost = out.inside+len(answered)+len(lost), out.insideLost+len(lost)
	}
	for _, p := range killed {
		if strings.HasSuffix(p, "/gateway") {
			sent, err := metric(t.Context(), c.lab, p, "hythe_xds_resources_total")
			if err != nil {
				t.Error(err)
			}
			out.xds += sent
		}
	}
	c.rounds = append(c.rounds, out)
	machine, _ := os.ReadFile("/proc/loadavg")
	t.Logf("%s to %s: owner %s, moved %v, lost %d, outage %v, settled %v, xds %v, announced %d; load %s",
		at.Format("15:04:05.000"), dead.Format("05.000"), owner, out.moved, out.lost, out.outage, out.settled, out.xds, out.announced, machine)
	for _, n := range nodeNames {
		was, is := before[n], after[n]
		if out.withEnvoy() { // an endpoint went and came
			was, is = unordered(was), unordered(is)
		}
		if was != is {
			t.Errorf("the kernel of %s changed:\n%s", n, changed(was, is))
		}
	}
	c.judge(t, out, owner, at, lost)
}

func (o outcome) withEnvoy() bool {
	return slices.ContainsFunc(o.killed, func(p string) bool { return strings.HasSuffix(p, "/envoy") })
}

// judge says what may not be.
func (c *crashes) judge(t *testing.T, out outcome, owner string, at time.Time, lost []load.Result) {
	t.Helper()
	if s := c.stalls.longest(at); s > stallLimit {
		t.Logf("not judged: the machine stood still for %s", s)
		return
	}
	for _, s := range c.traffic.inside {
		if _, lost := s.since(at); len(lost) > 0 {
			t.Errorf("%s: %d lost%s", s.name, len(lost), first(lost))
		}
	}
	mayMove := slices.Contains(out.killed, owner+"/node") || slices.Contains(out.killed, owner+"/envoy")
	if out.moved && !mayMove {
		t.Errorf("the VIP left %s, whose processes were not killed", owner)
	}
	if len(lost) > 0 && !out.moved && !slices.Contains(out.killed, owner+"/envoy") {
		t.Errorf("%d requests lost%s", len(lost), first(lost))
	}
	if out.outage > outageLimit+c.slow(at) {
		t.Errorf("no answer from the VIP for %s%s", out.outage, first(lost))
	}
	if out.announced > announceLimit {
		t.Errorf("the VIP was announced %d times", out.announced)
	}
	c.judgeWrites(t, out)
}

// slow is how late this machine is: the longest time for a request that no crash concerns.
func (c *crashes) slow(since time.Time) time.Duration {
	var longest time.Duration
	for _, s := range c.traffic.inside {
		answered, _ := s.since(since)
		for _, r := range answered {
			longest = max(longest, r.Took)
		}
	}
	return longest
}

// judgeWrites knows what a process may write that is started again, where nothing changed: nothing, but for an agent
// that becomes the holder of the table, in one transaction, and what an owner of a VIP writes down. An Envoy that is
// away is a change.
func (c *crashes) judgeWrites(t *testing.T, out outcome) {
	t.Helper()
	if out.withEnvoy() {
		return
	}
	if out.xds > 0 {
		t.Errorf("%v resources were sent to Envoys that had them", out.xds)
	}
	held := map[string]int{}
	for _, line := range out.kernelWrites {
		node, what, _ := strings.Cut(line, ": ")
		isHolding := what == "add table inet hythe" || strings.HasPrefix(what, "# new generation")
		held[node]++
		if !isHolding || held[node] > 2 || !slices.Contains(out.killed, node+"/node") {
			t.Errorf("written to the kernel of %s", line)
		}
	}
	for _, name := range out.fileWrites {
		aboutVIP := strings.HasSuffix(name, "vips.json") || strings.HasPrefix(name, "state/report-node-")
		if !out.moved || !aboutVIP {
			t.Errorf("file %s was written", name)
		}
	}
}

func rounds(t *testing.T) int {
	text := os.Getenv("CRASH_ROUNDS")
	if text == "" {
		return 4
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCrash(t *testing.T) {
	c := newCrashes(t, "crashes")
	for _, s := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"rounds", c.someRounds}, {"power cut", c.powerCut}, {"upgrade", c.upgrade}, {"Envoys replaced", c.replaceEnvoys}, {"stopped agent", c.stoppedAgent}, {"stuck Envoy", c.stuckEnvoy},
		{"reboot", c.reboot}, // the last one: afterwards the pods' links have other names
	} {
		t.Run(s.name, s.run)
	}
	c.write(t)
}

// note keeps a result for people.
func (c *crashes) note(t *testing.T, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	t.Log(text)
	c.notes = append(c.notes, text)
}

// Each process is killed alone, then any of them together, at random moments under traffic. Nothing is lost but what an
// Envoy held, or what came through a VIP that moved.
func (c *crashes) someRounds(t *testing.T) {
	for i := range rounds(t) {
		killed := c.choose(i)
		t.Run(fmt.Sprintf("%d/%s", i+1, strings.ReplaceAll(strings.Join(killed, "+"), "/", ".")), func(t *testing.T) {
			c.round(t, killed)
		})
	}
	c.wantFirst(t)
}

// write writes the results for people, to the file that CRASH_RESULTS names.
func (c *crashes) write(t *testing.T) {
	t.Helper()
	path := os.Getenv("CRASH_RESULTS")
	if path == "" {
		return
	}
	kinds := map[string][]outcome{}
	for _, o := range c.rounds {
		kinds[o.kind()] = append(kinds[o.kind()], o)
		kinds["all rounds"] = append(kinds["all rounds"], o)
	}
	var out strings.Builder
	fmt.Fprintf(&out, `# Crashes

Written by `+"`make crash`"+` at %s, commit %s. %d rounds, seed %d. In each round the named processes are killed by SIGKILL at random
moments within half a second, under traffic: 100 requests a second of HTTP/1.1 (8 connections) and HTTP/2 (2 connections) over TLS
through the VIP and Envoy; past Envoy, on each node, a NodePort on one connection that is never closed, a ClusterIP
from a pod on one such connection and on new ones, 10 requests a second each. Envoy is started again at once, as a kubelet does, the others
after 0 to 1.5 s. Nothing is asked twice: what is not answered by 200 is lost. The outage is the longest time
without an answer from the VIP. Test: `+"`internal/lab/crash_test.go`"+`, which also compares kernel, files and xDS before and after.

| killed | rounds | VIP moved | requests to the VIP | lost | requests past Envoy | lost | outage in ms, median (least to most) |
|---|---|---|---|---|---|---|---|
`, time.Now().UTC().Format(time.DateOnly), os.Getenv("CRASH_COMMIT"), len(c.rounds), c.seed)
	for _, kind := range []string{"controller", "gateway", "node", "node with the VIP", "Envoy", "Envoy with the VIP", "several", "all rounds"} {
		if rounds := kinds[kind]; len(rounds) > 0 {
			fmt.Fprintf(&out, "| %s | %s |\n", kind, row(rounds))
		}
	}
	fmt.Fprintln(&out)
	for _, n := range c.notes {
		fmt.Fprintf(&out, "- %s\n", n)
	}
	if t.Failed() {
		fmt.Fprint(&out, "\nThe test FAILED.\n")
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
		t.Error(err)
	}
}

func (o outcome) kind() string {
	if len(o.killed) > 1 {
		return "several"
	}
	node, process, _ := strings.Cut(o.killed[0], "/")
	if process == "envoy" {
		process = "Envoy"
	}
	if node == o.owner && process != "gateway" {
		process += " with the VIP"
	}
	return process
}

func row(rounds []outcome) string {
	var sum outcome
	var outages []time.Duration
	moved := 0
	for _, o := range rounds {
		sum.requests, sum.lost = sum.requests+o.requests, sum.lost+o.lost
		sum.inside, sum.insideLost = sum.inside+o.inside, sum.insideLost+o.insideLost
		outages = append(outages, o.outage)
		if o.moved {
			moved++
		}
	}
	slices.Sort(outages)
	return fmt.Sprintf("%d | %d | %d | %d | %d | %d | %d (%d to %d)", len(rounds), moved, sum.requests, sum.lost, sum.inside, sum.insideLost,
		outages[len(outages)/2].Milliseconds(), outages[0].Milliseconds(), outages[len(outages)-1].Milliseconds())
}
