package lab_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/demo"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/testenv"
)

// build returns the path of hythe, with hythe-cni beside it.
func build(t *testing.T) string {
	t.Helper()
	return buildWith(t)
}

// buildWith gives more flags to go build.
func buildWith(t *testing.T, flags ...string) string {
	t.Helper()
	testenv.Root(t)
	envoy := testenv.Envoy(t)
	t.Setenv("ENVOY", envoy)
	dir := t.TempDir()
	for _, name := range []string{"hythe", "hythe-cni"} {
		args := append([]string{"build", "-o", filepath.Join(dir, name)}, flags...)
		out, err := exec.Command("go", append(args, "hythe.dev/hythe/cmd/"+name)...).CombinedOutput()
		if err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return filepath.Join(dir, "hythe")
}

// start runs a lab of the examples until the test ends.
func start(t *testing.T, hythe, name string) lab.Lab {
	t.Helper()
	l := open(t, name)
	up(t, hythe, l)
	return l
}

func open(t *testing.T, name string) lab.Lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "hythelab") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(name, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("logs are in %s", l.Logs())
			return
		}
		_ = os.RemoveAll(dir)
	})
	return l
}

func up(t *testing.T, hythe string, l lab.Lab) {
	t.Helper()
	out, err := exec.Command(hythe, "lab", "up", "--name", l.Name, "--dir", l.Dir, "--manifests", "../../examples", "--fill").CombinedOutput()
	if err != nil {
		t.Fatalf("lab up: %v\n%s", err, out)
	}
}

// A trace is what a lab could leave on a machine.
type trace struct {
	namespaces, links, mounts, processes []string
}

func look(t *testing.T, l lab.Lab) trace {
	t.Helper()
	var out trace
	var err error
	if out.namespaces, err = topology.Namespaces(l.Name); err != nil {
		t.Fatal(err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		out.links = append(out.links, link.Attrs().Name)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "."+l.Name+" ") || strings.Contains(line, l.Dir) {
			out.mounts = append(out.mounts, line)
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		command, _ := os.ReadFile(path)
		// Pods' processes do not name the folder, but their environment or namespace does; Envoy and Hythe do.
		if text := strings.ReplaceAll(string(command), "\x00", " "); strings.Contains(text, l.Dir+"/") || strings.Contains(text, l.Dir+" ") {
			out.processes = append(out.processes, text)
		}
	}
	slices.Sort(out.links)
	return out
}

// pids lists all processes in the lab's namespaces.
func pids(t *testing.T, l lab.Lab) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(l.Dir, "pids"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func wantNothing(t *testing.T, l lab.Lab, before trace, pids []string) {
	t.Helper()
	after := look(t, l)
	if len(after.namespaces)+len(after.mounts)+len(after.processes) > 0 {
		t.Errorf("left behind: namespaces %v, mounts %v, processes %v", after.namespaces, after.mounts, after.processes)
	}
	if !slices.Equal(before.links, after.links) {
		t.Errorf("links were %v and are %v", before.links, after.links)
	}
	for _, pid := range pids {
		if stat, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && strings.Contains(string(stat), "hythe") {
			t.Errorf("process %s is left: %q", pid, stat)
		}
	}
	for _, pattern := range []string{"*.sock", "*/*.sock", "*/*/*.sock", "*/*/*/*.sock"} {
		if sockets, _ := filepath.Glob(filepath.Join(l.Dir, pattern)); len(sockets) > 0 {
			t.Errorf("sockets are left: %v", sockets)
		}
	}
}

func TestDownLeavesNothing(t *testing.T) {
	hythe := build(t)
	l := open(t, "downtest")
	before := look(t, l)
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("crash=%v", crash), func(t *testing.T) {
			up(t, hythe, l)
			running := pids(t, l)
			if len(running) < 10 || len(look(t, l).namespaces) < 10 {
				t.Fatalf("the lab has %d processes and %d namespaces only", len(running), len(look(t, l).namespaces))
			}
			if crash {
				st, err := l.Client().Status(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // it may be repeated
				if out, err := exec.Command(hythe, "lab", "down", "--name", l.Name, "--dir", l.Dir).CombinedOutput(); err != nil {
					t.Fatalf("lab down: %v\n%s", err, out)
				}
			}
			wantNothing(t, l, before, running)
		})
	}
}

// A lab whose supervisor crashed is replaced by the next one, and Services keep their addresses.
func TestUpAfterCrash(t *testing.T) {
	hythe := build(t)
	l := start(t, hythe, "crashtest")
	services, err := os.ReadFile(filepath.Join(l.State(), "services.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Up(t.Context(), lab.Options{Manifests: "../../examples", Out: io.Discard, Wait: time.Second}); err == nil {
		t.Fatal("a second lab of the same name started")
	}
	st, err := l.Client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if _, ok := topology.StartTime(st.PID); !ok {
			break
		}
	}
	up(t, hythe, l)
	again, err := os.ReadFile(filepath.Join(l.State(), "services.yaml"))
	if err != nil || string(again) != string(services) {
		t.Errorf("Services changed over a restart (%v):\n%s\nnow\n%s", err, services, again)
	}
}

// The owner of a VIP fails five times in each of three ways; each time the VIP moves within three seconds, and stays
// where it is when the former owner comes back.
func TestFailover(t *testing.T) {
	hythe := build(t)
	l := start(t, hythe, "failtest")
	st, err := l.Client().Status(t.Context())
	if err != nil || len(st.VIPs) != 1 {
		t.Fatalf("VIPs %v, %v", st.VIPs, err)
	}
	f := demo.NewFailover(l, netip.MustParseAddr(st.VIPs[0].Address))
	for _, fault := range demo.Faults() {
		for i := range 5 {
			t.Run(fmt.Sprintf("%s/%d", fault, i+1), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				trial, err := f.Try(ctx, fault)
				t.Log(trial)
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}
