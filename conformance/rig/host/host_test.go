package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hythe.dev/hythe/internal/lab/topology"
)

func TestParseHierarchies(t *testing.T) {
	const mountinfo = `22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:5 - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
short line
`
	want := []hierarchy{
		{path: "/sys/fs/cgroup/cpu", kind: "cgroup", options: "cpu"},
		{path: "/sys/fs/cgroup/systemd", kind: "cgroup", options: "name=systemd"},
		{path: "/sys/fs/cgroup/unified", kind: "cgroup2"},
	}
	got := parseHierarchies(mountinfo)
	if d := cmp.Diff(want, got, cmp.AllowUnexported(hierarchy{})); d != "" {
		t.Error(d)
	}
}

func TestCgroupMounts(t *testing.T) {
	one := cgroupMounts([]hierarchy{{path: "/sys/fs/cgroup", kind: "cgroup2"}})
	if len(one) != 1 || one[0].kind != "cgroup2" {
		t.Errorf("one tree alone: %+v", one)
	}
	many := cgroupMounts([]hierarchy{{path: "/sys/fs/cgroup/cpu", kind: "cgroup", options: "cpu"}})
	if len(many) != 2 || many[0].kind != "tmpfs" || many[1].data != "cpu" || !many[1].make {
		t.Errorf("several trees: %+v", many)
	}
}

func TestInCgroup(t *testing.T) {
	for lines, want := range map[string]bool{
		"9:name=systemd:/hythe-cluster/node1\n":            true,
		"5:memory:/\n0::/hythe-cluster/node1/k8s.io/abc\n": true,
		"0::/hythe-cluster/node10\n":                       false,
		"0::/\n":                                           false,
		"":                                                 false,
		"4:memory:/other/hythe-cluster/node1\n3:cpuset:/a\n": false,
	} {
		if got := inCgroup(lines, "/hythe-cluster/node1"); got != want {
			t.Errorf("%q: %v, want %v", lines, got, want)
		}
	}
}

// TestDaemonPID says that a process which got a daemon's pid later is not the daemon: it would be killed for it.
func TestDaemonPID(t *testing.T) {
	start, ok := topology.StartTime(os.Getpid())
	if !ok {
		t.Fatal("no start time of this process")
	}
	for name, c := range map[string]struct {
		start uint64
		want  bool
	}{"same process": {start, true}, "pid used again": {start - 1, false}} {
		file := filepath.Join(t.TempDir(), "pid")
		if err := writePID(file, pidFile{PID: os.Getpid(), Start: c.start}); err != nil {
			t.Fatal(err)
		}
		if _, ok := (Daemon{PIDFile: file}).PID(); ok != c.want {
			t.Errorf("%s: runs %v, want %v", name, ok, c.want)
		}
	}
	if _, ok := (Daemon{PIDFile: filepath.Join(t.TempDir(), "none")}).PID(); ok {
		t.Error("a daemon without a pid file runs")
	}
}
