package kube

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
)

// fakeNode has a condition Ready. Each call with another status is a transition: its time is that of the bubble.
func fakeNode(i int, ready corev1.ConditionStatus, since time.Time) *corev1.Node {
	return &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i), ResourceVersion: "1"},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: ready, LastTransitionTime: metav1.NewTime(since), LastHeartbeatTime: metav1.Now(),
		}}},
	}
}

// fakeSlice has one pod on each node: + is ready, - is not, t is terminating, a space is none.
func fakeSlice(pods string) *discoveryv1.EndpointSlice {
	port, name := int32(80), "http"
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "web-1", ResourceVersion: "1",
			Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for i, c := range pods {
		if c == ' ' {
			continue
		}
		ready, terminating, node := c == '+', c == 't', fmt.Sprint("n", i)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{fmt.Sprint("10.0.0.", i+1)}, NodeName: &node, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprint("web-", i)},
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready, Terminating: &terminating},
		})
	}
	return s
}

// podsOf writes the endpoints of a Snapshot as fakeSlice reads them.
func podsOf(s *model.Snapshot) string {
	out := []byte("   ")
	e := s.Endpoints.Get(model.Key{Namespace: "a", Name: "web"})
	for _, e := range e.Port("http", corev1.ProtocolTCP) {
		c := byte('-')
		if e.Ready && e.Serving {
			c = '+'
		}
		if e.Terminating {
			c = 't'
		}
		out[e.AddrPort.Addr().As4()[3]-1] = c
	}
	return string(out)
}

var conditions = map[rune]corev1.ConditionStatus{'R': corev1.ConditionTrue, 'U': corev1.ConditionUnknown, 'F': corev1.ConditionFalse}

// A cluster is a fake server with a state that is written as in fakeSlice, and Nodes as R (Ready), U (Unknown) and F (not Ready).
type cluster struct {
	*fakeServer
	nodes string
	since [3]time.Time
}

func newCluster(nodes, pods string) *cluster {
	c := &cluster{fakeServer: newFakeServer()}
	c.setNodes(nodes)
	c.set("endpointslices", fakeSlice(pods))
	return c
}

// setNodes changes what is listed and returns those that differ.
func (c *cluster) setNodes(nodes string) (changed []any) {
	var all []any
	for i, s := range nodes {
		differs := i >= len(c.nodes) || rune(c.nodes[i]) != s
		if differs {
			c.since[i] = time.Now()
		}
		n := fakeNode(i, conditions[s], c.since[i])
		all = append(all, n)
		if differs {
			changed = append(changed, n)
		}
	}
	c.nodes = nodes
	c.set("nodes", all...)
	return changed
}

// do takes one step: "nodes UUU", "pods ---", "blink 0" (a node that was away unseen), "list" (both anew), "wait 5s".
func (c *cluster) do(t *testing.T, step string) {
	t.Helper()
	what, arg, _ := strings.Cut(step, " ")
	switch what {
	case "nodes":
		for _, n := range c.setNodes(arg) {
			c.send("nodes", "MODIFIED", n)
		}
	case "blink":
		for i := range c.since {
			if strings.Contains(arg, fmt.Sprint(i)) {
				c.since[i] = time.Now()
				c.send("nodes", "MODIFIED", fakeNode(i, corev1.ConditionTrue, c.since[i]))
			}
		}
	case "pods":
		c.set("endpointslices", fakeSlice(arg))
		c.send("endpointslices", "MODIFIED", fakeSlice(arg))
	case "gone":
		c.send("endpointslices", "DELETED", fakeSlice("+++"))
	case "wait":
		d, err := time.ParseDuration(arg)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(d)
	default:
		t.Fatalf("step %q", step)
	}
}

// TestDisruption plays what a cluster says after the API server, or its controller manager, was away, in several orders, and
// what looks alike and is none. Each step ends by "= pods", with ! if there is the Problem.
func TestDisruption(t *testing.T) {
	for name, steps := range map[string][]string{
		"as it is":                    {"nodes UUU = +++!", "pods --- = +++!", "nodes RRR = +++!", "pods +++ = +++!", "wait 61s = +++"},
		"for ten minutes":             {"nodes UUU = +++!", "pods --- = +++!", "wait 10m = +++!", "nodes RRR = +++!", "wait 50s = +++!", "pods +++ = +++!", "wait 11s = +++"},
		"one after the other":         {"nodes URR = +++", "nodes UUR = +++!", "pods --+ = +++!", "nodes RUR = +++!", "pods +-+ = +++!", "nodes RRR = +++!", "pods +++ = +++!"},
		"slices last":                 {"nodes UUU = +++!", "nodes RRR = +++!", "wait 18s = +++!", "pods --- = +++!", "pods +++ = +++!"},
		"slices first":                {"pods --- = ---", "nodes UUU = +++!", "nodes RRR = +++!", "pods +++ = +++!"},
		"it was over when seen":       {"blink 01 = +++!", "pods --- = ++-!", "pods +++ = +++!"},
		"most but not all":            {"nodes UUR = +++!", "pods --- = ++-!", "nodes RRR = ++-!", "pods +++ = +++!"},
		"most are dead":               {"nodes UUR = +++!", "pods --+ = +++!", "wait 59s = +++!", "wait 2s = --+"},
		"two of three stay away":      {"nodes UUU = +++!", "pods --- = +++!", "wait 5m = +++!", "nodes RUU = +++!", "pods +-- = +++!", "wait 61s = +--"},
		"never posted":                {"nodes UUU = +++!", "pods --- = +++!", "nodes RRR = +++!", "wait 59s = +++!", "wait 2s = ---"},
		"one dies":                    {"nodes URR = +++", "pods -++ = -++"},
		"one dies, one later":         {"nodes URR = +++", "pods -++ = -++", "wait 1m = -++", "nodes UUR = -++", "pods --+ = --+"},
		"two kubelets say so":         {"nodes FFR = +++", "pods --+ = --+"},
		"a probe fails":               {"pods -++ = -++", "pods --- = ---"},
		"a probe fails, then it is":   {"pods -++ = -++", "wait 11s = -++", "nodes UUU = -++!", "pods --- = -++!"},
		"a probe fails after it":      {"nodes UUU = +++!", "pods --- = +++!", "nodes RRR = +++!", "pods +++ = +++!", "pods -++ = -++!"},
		"a second time":               {"nodes UUU = +++!", "pods --- = +++!", "nodes RRR = +++!", "pods +++ = +++!", "nodes UUU = +++!", "pods --- = +++!"},
		"a pod goes":                  {"nodes UUU = +++!", "pods --- = +++!", "pods - - = + +!", "pods --- = +-+!"},
		"a pod ends":                  {"nodes UUU = +++!", "pods --- = +++!", "pods t-- = t++!"},
		"the EndpointSlice goes":      {"nodes UUU = +++!", "pods --- = +++!", "gone =    !"},
		"unready since before it was": {"pods -++ = -++", "wait 1m = -++", "nodes UUU = -++!", "nodes RRR = -++!", "pods +++ = +++!"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("RRR", "+++")
				w := watchFake(t, c.fakeServer, APIOptions{Kinds: []string{"EndpointSlice", "Node"}})
				defer w.stop()
				w.last(time.Second)
				playAll(t, c, w, steps)
			})
		})
	}
}

func playAll(t *testing.T, c *cluster, w *watching, steps []string) {
	t.Helper()
	for _, step := range steps {
		time.Sleep(time.Millisecond) // Nodes turn at another time each time
		do, want, _ := strings.Cut(step, " = ")
		c.do(t, do)
		s := w.last(100 * time.Millisecond)
		got := podsOf(s)
		if strings.Contains(reasons(s), ReasonNodesSilent) {
			got += "!"
		}
		if got != want {
			t.Fatalf("%s: %q, want %q", step, got, want)
		}
	}
}

// TestDisruptionOfFew has clusters of one Node, which is silent or alone, and of two, of which one dies.
func TestDisruptionOfFew(t *testing.T) {
	for name, tt := range map[string]struct {
		nodes, pods string
		steps       []string
	}{
		"one":            {"R", "+", []string{"nodes U = +  !", "pods - = +  !", "wait 10m = +  !", "nodes R = +  !", "pods + = +  !", "wait 61s = +  "}},
		"two":            {"RR", "++", []string{"nodes UU = ++ !", "pods -- = ++ !", "nodes RU = ++ !", "pods +- = ++ !", "nodes RR = ++ !", "pods ++ = ++ !"}},
		"one of two":     {"RR", "++", []string{"nodes UR = ++ ", "pods -+ = -+ "}},
		"one long after": {"RRU", "++-", []string{"wait 1m = ++-", "nodes URU = ++-", "pods -+- = -+-"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(tt.nodes, tt.pods)
				w := watchFake(t, c.fakeServer, APIOptions{Kinds: []string{"EndpointSlice", "Node"}})
				defer w.stop()
				w.last(time.Second)
				playAll(t, c, w, tt.steps)
			})
		})
	}
}

// TestDisruptionAway lets the API server itself be away. When it is back, each watch is on its own: whatever the order, no
// Snapshot has an endpoint less.
func TestDisruptionAway(t *testing.T) {
	for _, away := range []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute} {
		for seed := range uint64(10) {
			t.Run(fmt.Sprint(away, " ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster("RRR", "+++")
					w := watchFake(t, c.fakeServer, APIOptions{Kinds: []string{"EndpointSlice", "Node"}, Seed: seed + 1})
					defer w.stop()
					w.last(time.Second)
					c.leave(true)
					w.last(away)
					c.setNodes("UUU")
					c.set("endpointslices", fakeSlice("---"))
					c.leave(false)
					for range 50 { // until both watches run again, with the one or the other first
						time.Sleep(200 * time.Millisecond)
						if seed%2 == 0 {
							c.send("endpointslices", "MODIFIED", fakeSlice("---"))
						}
						for i := range 3 {
							c.send("nodes", "MODIFIED", fakeNode(i, corev1.ConditionUnknown, c.since[i]))
						}
						if seed%2 == 1 {
							c.send("endpointslices", "MODIFIED", fakeSlice("---"))
						}
					}
					c.gone("nodes")
					w.last(10 * time.Second)
					c.do(t, "nodes RRR")
					w.last(10 * time.Second)
					c.do(t, "pods +++")
					w.last(2 * time.Minute)
					w.mu.Lock()
					defer w.mu.Unlock()
					for i, s := range w.all {
						if got := podsOf(s); got != "+++" {
							t.Errorf("Snapshot %d of %d: %q, problems %v", i, len(w.all), got, s.Problems)
						}
					}
					silent := slices.ContainsFunc(w.all, func(s *model.Snapshot) bool { return strings.Contains(reasons(s), ReasonNodesSilent) })
					if s := w.all[len(w.all)-1]; !silent || podsOf(s) != "+++" || len(s.Problems) != 0 {
						t.Errorf("in the end %q, problems %v, there was the Problem: %v", podsOf(s), s.Problems, silent)
					}
				})
			})
		}
	}
}

// TestDisruptionRestart starts a process in the middle: what an earlier one used counts, whether the API server answers or not.
func TestDisruptionRestart(t *testing.T) {
	for name, tt := range map[string]struct {
		wait  time.Duration // between the two
		held  bool          // the first still saw it
		away  bool          // the second starts without API server
		first string        // the first Snapshot of the second
	}{
		"it answers":             {0, false, false, "+++"},
		"it answers, after long": {time.Hour, false, false, "---"},
		"in the middle":          {0, true, false, "---"},
		"it is away":             {0, false, true, "+++"},
		"it is away for long":    {time.Hour, false, true, "+++"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster("RRR", "+++")
				options := APIOptions{Kinds: []string{"EndpointSlice", "Node"}, CacheDir: t.TempDir()}
				w := watchFake(t, c.fakeServer, options)
				w.last(10 * time.Second)
				if tt.held {
					playAll(t, c, w, []string{"nodes UUU = +++!", "pods --- = +++!", "wait 10s = +++!"})
					tt.first = "+++"
				}
				w.stop()
				c.setNodes("UUU")
				c.set("endpointslices", fakeSlice("---"))
				time.Sleep(tt.wait)
				c.leave(tt.away)
				w = watchFake(t, c.fakeServer, options)
				defer w.stop()
				if got := podsOf(w.last(10 * time.Second)); got != tt.first {
					t.Fatalf("%q, want %q", got, tt.first)
				}
				c.leave(false)
				if got := podsOf(w.last(10 * time.Second)); got != tt.first {
					t.Fatalf("when it is back %q, want %q", got, tt.first)
				}
				c.gone("nodes")
				c.gone("endpointslices")
				w.last(10 * time.Second)
				playAll(t, c, w, []string{"nodes RRR = " + tt.first + "!", "pods +++ = +++!", "wait 61s = +++"})
			})
		})
	}
}

// TestDisruptionRestartWithout starts a process after a Node was deleted that its cache has: nobody will ever say that it is
// gone, and it must not count as one that is alive. All others are silent, so there is no end.
func TestDisruptionRestartWithout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("RRR", "++ ")
		options := APIOptions{Kinds: []string{"EndpointSlice", "Node"}, CacheDir: t.TempDir()}
		w := watchFake(t, c.fakeServer, options)
		w.last(10 * time.Second)
		w.stop()
		c.setNodes("UU")
		c.set("endpointslices", fakeSlice("-- "))
		w = watchFake(t, c.fakeServer, options)
		defer w.stop()
		if got := podsOf(w.last(5 * time.Minute)); got != "++ " {
			t.Errorf("%q after five minutes in which all Nodes are silent", got)
		}
	})
}

// TestDisruptionLate lets the watch of Nodes come back some seconds after that of EndpointSlices, which is not believed for
// that time; and not at all, which must not keep an endpoint ready for long.
func TestDisruptionLate(t *testing.T) {
	for name, tt := range map[string]struct {
		wait time.Duration
		want string
	}{
		"some seconds": {5 * time.Second, "+++"},
		"for long":     {20 * time.Second, "---"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisruption()
			now := time.Now()
			nodes := []change{nodeChange(0, 'R', now), nodeChange(1, 'R', now), nodeChange(2, 'R', now)}
			d.apply(append(nodes, slicesChange("+++")), now, false)
			got := d.apply([]change{slicesChange("---")}, now, true)
			for end := now.Add(tt.wait); now.Before(end); now = now.Add(time.Second) {
				got = append(got, d.apply(nil, now, true)...)
				if next := d.next(now); len(d.used) > 0 && (next.IsZero() || next.After(now.Add(time.Second))) {
					t.Fatal("nobody looks again")
				}
			}
			if pods := podsIn(got[len(got)-1]); pods != tt.want {
				t.Fatalf("while Nodes are late %q, want %q", pods, tt.want)
			}
			got = append(got, d.apply(nil, now.Add(2*time.Second), false)...)
			if pods := podsIn(got[len(got)-1]); pods != "---" {
				t.Errorf("when Nodes are Ready %q", pods)
			}
		})
	}
}

func slicesChange(pods string) change {
	s := fakeSlice(pods)
	return change{kind: "EndpointSlice", key: keyOf(s), object: compact(s)}
}

func nodeChange(i int, status rune, since time.Time) change {
	n := fakeNode(i, conditions[status], since)
	return change{kind: "Node", key: keyOf(n), object: n}
}

func podsIn(c change) string {
	return podsOf(newWorld().apply([]change{c}))
}

// TestHeartbeat sends Nodes that differ by the time of their heartbeat alone: each of a thousand kubelets writes one every
// five minutes, and no Snapshot is made of it.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("RRR", "+++")
		w := watchFake(t, c.fakeServer, APIOptions{Kinds: []string{"EndpointSlice", "Node"}})
		defer w.stop()
		w.last(time.Second)
		for range 10 {
			c.send("nodes", "MODIFIED", fakeNode(0, corev1.ConditionTrue, c.since[0]))
			w.last(time.Minute)
		}
		if w.count() != 1 {
			t.Errorf("%d Snapshots, want one", w.count())
		}
	})
}
