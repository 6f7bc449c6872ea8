package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/load"
	"hythe.dev/hythe/internal/lab/topology"
)

// A Fault is a way in which the owner of a VIP fails.
type Fault string

// The three ways.
const (
	KillNode  Fault = "kill -9 of hythe node"
	KillEnvoy Fault = "kill -9 of Envoy alone"
	CutCable  Fault = "its cable"
)

// Faults returns all of them.
func Faults() []Fault { return []Fault{KillNode, KillEnvoy, CutCable} }

const (
	// moveLimit is how long a VIP may take to move.
	moveLimit = 3 * time.Second
	// quiet is how long is watched before the fault, and after it was mended.
	quiet = 300 * time.Millisecond
	// stays is how long the VIP must stay once the former owner is back.
	stays       = 2 * time.Second
	askEvery    = 20 * time.Millisecond
	clientEvery = 15 * time.Millisecond
	mendLimit   = 20 * time.Second
)

// A Trial is what one failure of the owner looked like from outside.
type Trial struct {
	Fault    Fault
	Old, New string // nodes
	// Moved is the time from the fault to the first ARP answer of the new owner.
	Moved time.Duration
	// Warm is the longest time without an answer to a client behind the router, which opens a connection every 15 ms.
	Warm time.Duration
	// Silence is the longest time without an ARP answer to a machine that asks every 20 ms.
	Silence time.Duration
	// Both is the time in which both nodes answered ARP.
	Both time.Duration
}

// String is one line for people.
func (t Trial) String() string {
	s := fmt.Sprintf("%s to %s in %d ms; a client had no answer for %d ms, ARP none for %d ms",
		t.Old, t.New, t.Moved.Milliseconds(), t.Warm.Milliseconds(), t.Silence.Milliseconds())
	if t.Both > 0 {
		s += fmt.Sprintf("; both answered ARP for %d ms", t.Both.Milliseconds())
	}
	return s
}

// A Failover tries failures of one VIP's owner in a running lab.
type Failover struct {
	Lab lab.Lab
	VIP netip.Addr

	plan topology.Plan
}

// NewFailover returns a Failover for the address vip of l.
func NewFailover(l lab.Lab, vip netip.Addr) *Failover {
	return &Failover{Lab: l, VIP: vip, plan: topology.Build(l.Name)}
}

// Owner asks by ARP, from the control machine, which node has the VIP. Anything but one answer is an error.
func (f *Failover) Owner(ctx context.Context) (string, error) {
	voices, err := whoHas(ctx, f.Lab.Namespace(topology.Control), "eth0", f.control(), f.VIP, quiet)
	if err != nil {
		return "", err
	}
	return f.only(voices)
}

func (f *Failover) control() netip.Addr { return netip.MustParseAddr("203.0.113.100") }

// only returns the one node that all voices are of.
func (f *Failover) only(voices []voice) (string, error) {
	var nodes []string
	for _, v := range voices {
		if n := f.node(v.mac); !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	switch len(nodes) {
	case 0:
		return "", errors.New("nobody answers ARP")
	case 1:
		return nodes[0], nil
	}
	return "", fmt.Errorf("%s answer ARP", strings.Join(nodes, " and "))
}

// node names the node with this MAC.
func (f *Failover) node(mac string) string {
	for _, n := range f.plan.Nodes {
		if n.MAC.String() == mac {
			return n.Name
		}
	}
	return "the stranger " + mac
}

// Try lets the owner fail, watches the VIP move, mends the owner and watches the VIP stay. The Trial is valid also with
// an error, as far as it came.
func (f *Failover) Try(ctx context.Context, fault Fault) (Trial, error) {
	t := Trial{Fault: fault}
	if err := f.settled(ctx); err != nil {
		return t, fmt.Errorf("before the fault: %w", err)
	}
	var err error
	if t.Old, err = f.Owner(ctx); err != nil {
		return t, fmt.Errorf("before the fault: %w", err)
	}
	w, err := f.watch(ctx)
	if err != nil {
		return t, err
	}
	defer w.end()
	time.Sleep(quiet)
	at := time.Now()
	if err := f.apply(ctx, fault, t.Old, false); err != nil {
		return t, err
	}
	err = f.awaitMove(ctx, w, &t, at)
	time.Sleep(quiet)
	t.Warm = w.client.gap(at.Add(-quiet), time.Now())
	voices := w.asker.heard(at.Add(-quiet))
	t.Silence, t.Both = silence(voices, time.Now()), both(voices, f.macOf(t.Old), at)
	if mendErr := f.mend(ctx, fault, t, w); err == nil {
		err = mendErr
	}
	return t, err
}

// awaitMove waits until another node answers.
func (f *Failover) awaitMove(ctx context.Context, w *watch, t *Trial, at time.Time) error {
	for time.Since(at) < 2*moveLimit && ctx.Err() == nil {
		for _, v := range w.asker.heard(at) {
			if n := f.node(v.mac); n != t.Old {
				t.New, t.Moved = n, v.at.Sub(at)
				if t.Moved > moveLimit {
					return fmt.Errorf("the VIP moved only after %s", t.Moved)
				}
				return f.awaitClient(ctx, w, time.Now())
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.Join(fmt.Errorf("the VIP did not move within %s", 2*moveLimit), ctx.Err())
}

// awaitClient waits until the client is answered again.
func (f *Failover) awaitClient(ctx context.Context, w *watch, since time.Time) error {
	for deadline := time.Now().Add(moveLimit); time.Now().Before(deadline) && ctx.Err() == nil; {
		if w.client.answeredSince(since) {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errors.Join(fmt.Errorf("the client got no answer from the new owner within %s", moveLimit), ctx.Err())
}

// mend brings the former owner back and watches that the VIP stays.
func (f *Failover) mend(ctx context.Context, fault Fault, t Trial, w *watch) error {
	if err := f.apply(ctx, fault, t.Old, true); err != nil {
		return err
	}
	back := time.Now()
	if err := f.settled(ctx); err != nil {
		return fmt.Errorf("after the fault: %w", err)
	}
	time.Sleep(stays)
	if t.New == "" {
		return nil
	}
	owner, err := f.only(w.asker.heard(back))
	if err != nil {
		return fmt.Errorf("since %s is back: %w", t.Old, err)
	}
	if owner != t.New {
		return fmt.Errorf("since %s is back, %s has the VIP, not %s", t.Old, owner, t.New)
	}
	if gap := w.client.gap(back, time.Now()); gap > time.Second {
		return fmt.Errorf("when %s came back, a client had no answer for %s", t.Old, gap)
	}
	return nil
}

// apply lets the node fail, or mends it.
func (f *Failover) apply(ctx context.Context, fault Fault, node string, mend bool) error {
	if fault == CutCable {
		return topology.SetCable(f.Lab.Name, node, mend)
	}
	process := node + "/node"
	if fault == KillEnvoy {
		process = node + "/envoy"
	}
	if mend {
		return f.Lab.Client().Start(ctx, process)
	}
	return f.Lab.Client().Kill(ctx, process, true)
}

// settled waits until the lab is as it should be.
func (f *Failover) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mendLimit)
	defer cancel()
	return waitSettled(ctx, f.Lab.Client())
}

// waitSettled waits until the lab waits for nothing any more.
func waitSettled(ctx context.Context, client *lab.Client) error {
	last := "no answer"
	for {
		st, err := client.Status(ctx)
		if err == nil && len(st.Waiting) == 0 {
			return nil
		}
		if err == nil {
			last = strings.Join(st.Waiting, "; ")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the lab is not settled: %s", last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (f *Failover) macOf(node string) string {
	for _, n := range f.plan.Nodes {
		if n.Name == node {
			return n.MAC.String()
		}
	}
	return ""
}

// silence is the longest time between two voices, or since the last one.
func silence(voices []voice, end time.Time) time.Duration {
	var longest time.Duration
	for i, v := range voices {
		next := end
		if i+1 < len(voices) {
			next = voices[i+1].at
		}
		longest = max(longest, next.Sub(v.at))
	}
	return longest
}

// both is the time from the first answer of another node to the last one of the old node, zero if that came first.
func both(voices []voice, old string, since time.Time) time.Duration {
	var firstNew, lastOld time.Time
	for _, v := range voices {
		switch {
		case v.at.Before(since):
		case v.mac == old:
			lastOld = v.at
		case firstNew.IsZero():
			firstNew = v.at
		}
	}
	if firstNew.IsZero() || lastOld.IsZero() {
		return 0
	}
	return max(0, lastOld.Sub(firstNew))
}

// A watch is a client that connects and a machine that asks by ARP, both all the time.
type watch struct {
	asker  *asker
	client *steadyClient
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (f *Failover) watch(ctx context.Context) (*watch, error) {
	a, err := newAsker(f.Lab.Namespace(topology.Control), "eth0", f.control(), f.VIP)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{asker: a, cancel: cancel}
	w.client = &steadyClient{ns: f.Lab.Namespace(topology.Client), to: netip.AddrPortFrom(f.VIP, 80)}
	w.wg.Go(func() { _ = a.run(ctx, askEvery) })
	w.wg.Go(func() { w.client.run(ctx, clientEvery) })
	return w, nil
}

func (w *watch) end() {
	w.cancel()
	w.wg.Wait()
}

// A steadyClient opens a connection and sends a request every interval, whether or not the last one was answered.
type steadyClient struct {
	ns string
	to netip.AddrPort

	mu       sync.Mutex
	answered []time.Time
}

func (c *steadyClient) run(ctx context.Context, interval time.Duration) {
	var wg sync.WaitGroup
	defer wg.Wait()
	pace := load.NewPacer(interval)
	for pace.Wait(ctx) {
		wg.Go(func() {
			if c.ask(ctx) == nil {
				c.mu.Lock()
				c.answered = append(c.answered, time.Now())
				c.mu.Unlock()
			}
		})
	}
}

// ask wants the first line of any HTTP answer.
func (c *steadyClient) ask(ctx context.Context) error {
	const patience = 250 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := topology.Dial(ctx, c.ns, "tcp", c.to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // thousands of sockets need not linger
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	buf := make([]byte, 9)
	if _, err := conn.Read(buf); err != nil {
		return err
	}
	if !strings.HasPrefix(string(buf), "HTTP/1.1") {
		return fmt.Errorf("answer %q", buf)
	}
	return nil
}

// gap is the longest time without an answer between two moments.
func (c *steadyClient) gap(from, to time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, longest := from, time.Duration(0)
	for _, t := range slices.SortedFunc(slices.Values(c.answered), time.Time.Compare) {
		if t.Before(from) || t.After(to) {
			continue
		}
		longest = max(longest, t.Sub(last))
		last = t
	}
	return max(longest, to.Sub(last))
}

func (c *steadyClient) answeredSince(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.answered) > 0 && c.answered[len(c.answered)-1].After(t)
}
