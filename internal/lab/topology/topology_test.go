package topology

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"

	"hythe.dev/hythe/internal/testenv"
)

func TestOwns(t *testing.T) {
	for _, c := range []struct {
		lab, name string
		want      bool
	}{
		{"", "hythe-node1", true},
		{"", "hythe-pod-shop-web-1", true},
		{"", "hythe-node1.demo", false},
		{"demo", "hythe-node1.demo", true},
		{"demo", "hythe-node1", false},
		{"demo", "hythe-node1.demo2", false},
		{"", "hythe-other", false},
		{"", "my-hythe-node1", false},
		{"", "hythe-nodeX", false},
	} {
		if got := owns(c.lab, c.name); got != c.want {
			t.Errorf("owns(%q, %q) = %v, want %v", c.lab, c.name, got, c.want)
		}
	}
	for _, n := range Build("x").Namespaces {
		if !owns("x", n.Name) {
			t.Errorf("a lab does not own its namespace %s", n.Name)
		}
	}
	if name := PodNamespaceName("x", "shop", "web-1.2"); !owns("x", name) {
		t.Errorf("a lab does not own its pod's namespace %s", name)
	}
}

func TestUpDown(t *testing.T) {
	testenv.Root(t)
	const lab = "topotest"
	t.Cleanup(func() { _ = Down(lab) })
	if err := Down(lab); err != nil {
		t.Fatal(err)
	}
	if err := Up(Build(lab)); err != nil {
		t.Fatal(err)
	}
	// From the client, through the router and the bridge, to a node.
	if err := dial(lab, Client, "203.0.113.103:1"); !refused(err) {
		t.Errorf("client to node3: %v, want connection refused by it", err)
	}
	if err := SetCable(lab, "node3", false); err != nil {
		t.Fatal(err)
	}
	if err := dial(lab, Client, "203.0.113.103:1"); err == nil || refused(err) {
		t.Errorf("client to node3 without a cable: %v, want no answer", err)
	}
	if err := SetCable(lab, "node3", true); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("sleep", "1000")
	if err := Start(NamespaceName(lab, "node2"), sleeper); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleeper.Wait() }()
	if err := Down(lab); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("a process in a namespace of the lab outlived it")
		_ = sleeper.Process.Kill()
	}
	if left, _ := Namespaces(lab); len(left) > 0 {
		t.Errorf("namespaces left: %v", left)
	}
}

func dial(lab, role, addr string) error {
	return Do(NamespaceName(lab, role), func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

func refused(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && e.Err.Error() == "connect: connection refused"
}

// TestParseStartTime says that a process whose first thread has ended is there until the others have too: until then it
// listens on its ports.
func TestParseStartTime(t *testing.T) {
	const rest = " 1 1 1 0 -1 4194304 102 0 0 0 0 0 0 0 20 0 %d 0 3592492 3133440 382\n"
	for name, c := range map[string]struct {
		name    string
		threads int
		want    bool
	}{
		"runs":                       {"1 (cat) R", 1, true},
		"a name with spaces":         {"1 (a) b (c) S", 7, true},
		"a zombie with threads":      {"1 (kube-apiserver) Z", 5, true},
		"a zombie":                   {"1 (kube-apiserver) Z", 1, false},
		"one that is called (a) Z b": {"1 ((a) Z b) S", 1, true},
	} {
		ticks, ok := parseStartTime(fmt.Appendf(nil, c.name+rest, c.threads))
		if ok != c.want || ok && ticks != 3592492 {
			t.Errorf("%s: %d %v, want %v", name, ticks, ok, c.want)
		}
	}
	for _, cut := range []string{"", "1", "1 (cat) R 1 1"} {
		if _, ok := parseStartTime([]byte(cut)); ok {
			t.Errorf("%q is taken for a process", cut)
		}
	}
}
