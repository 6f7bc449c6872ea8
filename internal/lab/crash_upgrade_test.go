package lab_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/internal/lab"
)

// next builds hythe and hythe-cni once more, as another version.
func next(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"hythe", "hythe-cni"} {
		// hythe-cni has no version: without its symbols it is another file, too.
		out, err := exec.Command("go", "build", "-ldflags", "-s -w -X main.version=next", "-o", filepath.Join(dir, name), "hythe.dev/hythe/cmd/"+name).CombinedOutput()
		if err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return filepath.Join(dir, "hythe")
}

// edit replaces text in a manifest of the lab.
func (c *crashes) edit(t *testing.T, file, old, replacement string) {
	t.Helper()
	path := filepath.Join(c.lab.Manifests(), file)
	data, err := os.ReadFile(path)
	if err != nil || bytes.Count(data, []byte(old)) != 1 {
		t.Fatalf("edit %s: %q is not there once (%v)", file, old, err)
	}
	if err := atomicfile.WriteUnsynced(path, bytes.Replace(data, []byte(old), []byte(replacement), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}

// scale changes the replicas of Deployment soon, which has none in the examples.
func (c *crashes) scale(t *testing.T, from, to int) {
	t.Helper()
	c.edit(t, "shop.yaml", "replicas: "+strconv.Itoa(from)+"\n  selector:\n    matchLabels:\n      app: soon", "replicas: "+strconv.Itoa(to)+"\n  selector:\n    matchLabels:\n      app: soon")
}

// soon counts the pods of Deployment soon.
func soon(st lab.Status) (ready int) {
	for _, p := range st.Pods {
		if p.Owner == "soon" && p.Ready {
			ready++
		}
	}
	return ready
}

func process(st lab.Status, name string) lab.ProcessStatus {
	for _, p := range st.Processes {
		if p.Name == name {
			return p
		}
	}
	return lab.ProcessStatus{}
}

// awaitNew waits until a process runs as another one than before.
func (c *crashes) awaitNew(t *testing.T, name string, pid int) lab.ProcessStatus {
	t.Helper()
	for deadline := time.Now().Add(settleLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		st, err := c.client.Status(t.Context())
		if p := process(st, name); err == nil && p.PID != 0 && p.PID != pid && p.Ready {
			return p
		}
	}
	t.Fatalf("%s was not started again", name)
	return lab.ProcessStatus{}
}

// Each process is replaced by another build, one after the other, as a rolling update does; and then by the first one again,
// while pods come all the time. Nothing is lost, no connection is reset, no rule is written, and the VIP stays.
func (c *crashes) upgrade(t *testing.T) {
	executable := next(t)
	st := c.settle(t)
	present, err := os.Readlink("/proc/" + strconv.Itoa(process(st, "node1/node").PID) + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	owner, at := c.owner(t), time.Now()
	for _, name := range upgrades {
		for _, m := range c.monitors {
			m.take()
		}
		c.replace(t, name, executable)
		c.settle(t)
		c.wantOnlyHolding(t, name)
	}
	for i, name := range upgrades {
		c.scale(t, i, i+1) // is attached by the old plugin, or the new one
		c.replace(t, name, present)
		c.awaitSoon(t, i+1)
	}
	c.scale(t, len(upgrades), 0)
	c.awaitSoon(t, 0)
	answered, lost := c.wantAllAnswered(t, at)
	c.note(t, "Each process replaced by another build and back, pods coming meanwhile: %d requests, %d lost, no connection reset.", answered+lost, lost)
	if is := c.owner(t); is != owner && c.stalls.longest(at) < stallLimit {
		t.Errorf("the VIP moved from %s to %s", owner, is)
	}
	c.wantFirst(t)
}

var upgrades = []string{"control/controller", "node1/gateway", "node2/gateway", "node3/node", "node1/node", "node2/node"}

// replace lets a process end gracefully and come back as another program.
func (c *crashes) replace(t *testing.T, name, executable string) {
	t.Helper()
	st, err := c.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	was := process(st, name)
	if err := c.client.Restart(t.Context(), name, executable); err != nil {
		t.Fatal(err)
	}
	is := c.awaitNew(t, name, was.PID)
	if exe, err := os.Readlink("/proc/" + strconv.Itoa(is.PID) + "/exe"); err != nil || exe != executable {
		t.Errorf("%s runs %s, want %s (%v)", name, exe, executable, err)
	}
	if node, isNode := strings.CutSuffix(name, "/node"); isNode {
		want, _ := os.ReadFile(filepath.Join(filepath.Dir(executable), "hythe-cni"))
		got, err := os.ReadFile(filepath.Join(c.lab.Dir, "nodes", node, "cni", "bin", "hythe-cni"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("the plugin of %s is not the new one (%v)", node, err)
		}
	}
}

// wantOnlyHolding wants that nothing was written for a process that was replaced, but that it holds the table now.
func (c *crashes) wantOnlyHolding(t *testing.T, name string) {
	t.Helper()
	for n, m := range c.monitors {
		for _, line := range m.take() {
			if n+"/node" != name || line != "add table inet hythe" && !strings.HasPrefix(line, "# new generation") {
				t.Errorf("when %s was replaced, %s: %s", name, n, line)
			}
		}
	}
	if strings.HasSuffix(name, "/gateway") {
		if sent, err := metric(t.Context(), c.lab, name, "hythe_xds_resources_total"); err != nil || sent > 0 {
			t.Errorf("%s sent %v resources again, %v", name, sent, err)
		}
	}
}

// The Envoys are replaced, one node after the other, as a change of their DaemonSet does. They drain: what is under way
// is answered. What passes by Envoy does not notice.
func (c *crashes) replaceEnvoys(t *testing.T) {
	owner, before, at := c.owner(t), c.envoys(t), time.Now()
	c.edit(t, "hythe-system.yaml", "      labels:\n        app: envoy\n    spec:", "      annotations:\n        example.com/replaced: \"1\"\n      labels:\n        app: envoy\n    spec:")
	replaced := 0
	for deadline := time.Now().Add(4 * settleLimit); replaced < len(before) && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		replaced = 0
		for node, pid := range c.envoys(t) {
			if pid != 0 && pid != before[node] {
				replaced++
			}
		}
	}
	if replaced < len(before) {
		t.Fatalf("%d of %d Envoys were replaced", replaced, len(before))
	}
	c.settle(t)
	c.answered(t, time.Now())
	answered, lost := c.traffic.vip.since(at)
	c.note(t, "Both Envoys replaced (VIP on %s, then on %s): %d requests, %d lost, the VIP without an answer for %d ms.",
		owner, c.owner(t), len(answered)+len(lost), len(lost), c.traffic.vip.outage(at, time.Now()).Milliseconds())
	for _, s := range c.traffic.streams {
		if _, lost := s.since(at); len(lost) > 0 {
			t.Errorf("%s: %d lost%s", s.name, len(lost), first(lost))
		}
	}
	c.first = kernels(t, c.lab) // with the new pods
}

func (c *crashes) awaitSoon(t *testing.T, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleLimit)
	defer cancel()
	for {
		st, err := c.client.Status(ctx)
		if err == nil && soon(st) == want && len(st.Waiting) == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d pods of soon are ready, want %d: %v, %v", soon(st), want, st.Waiting, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// wantAllAnswered wants each stream to have lost nothing since a moment.
func (c *crashes) wantAllAnswered(t *testing.T, since time.Time) (answered, lost int) {
	t.Helper()
	c.answered(t, time.Now())
	for _, s := range c.traffic.streams {
		ok, gone := s.since(since)
		answered, lost = answered+len(ok), lost+len(gone)
		if len(gone) > 0 {
			t.Errorf("%s: %d lost of %d%s", s.name, len(gone), len(gone)+len(ok), first(gone))
		}
	}
	return answered, lost
}

// wantFirst wants the kernels as they were in the beginning.
func (c *crashes) wantFirst(t *testing.T) {
	t.Helper()
	for n, text := range kernels(t, c.lab) {
		if was, is := unordered(c.first[n]), unordered(text); was != is {
			t.Errorf("the kernel of %s is not what it was at first:\n%s", n, changed(was, is))
		}
	}
}
