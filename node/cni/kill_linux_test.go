package cni_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/testenv"
)

// TestKilledAtEachStep kills the real plugin before each system call of ADD and of DEL that changes something: files,
// or the kernel by netlink. Then ADD is possible as if nothing had been, DEL leaves nothing, and so does GC where the
// runtime has forgotten the pod.
func TestKilledAtEachStep(t *testing.T) {
	n := newLab(t, 1).nodes[0]
	const path = "/run/netns/ho-p0"
	testenv.NamedNetNS(t, "ho-p0")
	for _, verb := range []string{"ADD", "DEL"} {
		after := map[string]func(id string){
			"ADD again": func(id string) {
				_, err := n.attach(t, id, path)
				must(t, err)
				must(t, n.check(t, id, path))
				must(t, n.detach(t, id, path))
			},
			"DEL": func(id string) { must(t, n.detach(t, id, path)) },
			"GC": func(string) {
				testenv.InNetNS(t, n.ns, func() {
					if out, err := n.command(t, "GC", "another", "").CombinedOutput(); err != nil {
						t.Fatalf("GC: %v\n%s", err, out)
					}
				})
			},
		}
		for what, mend := range after {
			steps := 0
			for step, killed := 1, true; killed; step++ {
				id := fmt.Sprintf("p%s%d", verb, step)
				if verb == "DEL" {
					_, err := n.attach(t, id, path)
					must(t, err)
				}
				var call string
				killed, call = n.killAt(t, verb, id, path, step)
				mend(id)
				if t.Failed() {
					t.Fatalf("%s killed at step %d (%s), then %s", verb, step, call, what)
				}
				n.wantNothing(t)
				n.wantFiles(t)
				if t.Failed() {
					t.Fatalf("%s killed at step %d (%s), then %s", verb, step, call, what)
				}
				steps = step
			}
			t.Logf("%s has %d steps; then %s", verb, steps-1, what)
			if least := map[string]int{"ADD": 20, "DEL": 5}[verb]; steps-1 < least {
				t.Errorf("%s has %d steps only: this test does not see them", verb, steps-1)
			}
		}
	}
}

// wantFiles fails if there is anything in the folder of leases but the leases and their lock.
func (n *labNode) wantFiles(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.options.DataDir, "cni"))
	must(t, err)
	for _, e := range entries {
		if e.Name() != "leases.json" && e.Name() != "lock" {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// killAt runs the plugin and kills it before its step'th system call that changes something; false means that it has
// not so many, and came to its end. call names the system call.
func (n *labNode) killAt(t testing.TB, verb, id, path string, step int) (killed bool, call string) {
	t.Helper()
	cmd := n.command(t, verb, id, path)
	// No pipes: they would need cmd.Wait, and the tracer must wait itself.
	input, err := io.ReadAll(cmd.Stdin)
	must(t, err)
	stdin := filepath.Join(t.TempDir(), "stdin")
	must(t, os.WriteFile(stdin, input, 0o600))
	f, err := os.Open(stdin)
	must(t, err)
	defer f.Close()
	cmd.Stdin, cmd.SysProcAttr = f, &syscall.SysProcAttr{Ptrace: true}
	testenv.InNetNS(t, n.ns, func() { // on a thread of its own, which is the tracer
		must(t, cmd.Start())
		killed, call = trace(t, cmd.Process.Pid, step)
		_ = cmd.Process.Release()
	})
	return killed, call
}

// trace follows all threads of a process that was started to be traced by this thread.
func trace(t testing.TB, pid, step int) (killed bool, call string) {
	t.Helper()
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil || !status.Stopped() {
		t.Fatalf("the plugin did not start: %v, %v", status, err)
	}
	must(t, unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL))
	must(t, unix.PtraceSyscall(pid, 0))
	for seen := 0; ; {
		tid, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil)
		if err == unix.EINTR {
			continue
		}
		must(t, err)
		if status.Exited() || status.Signaled() {
			if tid != pid {
				continue
			}
			return killed, call
		}
		deliver := 0
		switch signal := status.StopSignal(); signal {
		case unix.SIGTRAP | 0x80:
			if name := changing(tid); name != "" && !killed {
				if seen++; seen == step {
					killed, call = true, name
					must(t, unix.Kill(pid, unix.SIGKILL)) // the system call is not made any more
				}
			}
		case unix.SIGTRAP, unix.SIGSTOP: // a new thread
		default:
			deliver = int(signal)
		}
		if err := unix.PtraceSyscall(tid, deliver); err != nil && err != unix.ESRCH {
			t.Fatal(err)
		}
	}
}

// syscallInfo is struct ptrace_syscall_info of linux/ptrace.h, as far as it is about an entry.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	_    [2]uint64
	nr   uint64
	args [6]uint64
}

// changing names the system call that a thread is about to make, if it changes something that others see.
func changing(tid int) string {
	const getSyscallInfo, entry = 0x420e, 1
	var info syscallInfo
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != entry {
		return ""
	}
	switch info.nr {
	case unix.SYS_SENDTO, unix.SYS_SENDMSG:
		return "sendto"
	case unix.SYS_MKDIRAT:
		return "mkdirat"
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return "renameat"
	case unix.SYS_UNLINKAT:
		return "unlinkat"
	case unix.SYS_FLOCK:
		return "flock"
	case unix.SYS_FSYNC:
		return "fsync"
	case unix.SYS_FCHMOD:
		return "fchmod"
	case unix.SYS_SETNS:
		return "setns"
	case unix.SYS_OPENAT:
		if info.args[2]&unix.O_CREAT != 0 {
			return "openat"
		}
	case unix.SYS_WRITE:
		// Eight bytes are the Go runtime, which wakes its poller.
		if info.args[0] > 2 && info.args[2] != 8 || info.args[0] == 1 {
			return "write"
		}
	}
	return ""
}
