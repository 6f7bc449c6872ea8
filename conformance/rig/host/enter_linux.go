package host

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/lab/topology"
)

// Start starts cmd on the node. The process of cmd is the program itself, by the machine's pid.
func (n Node) Start(cmd *exec.Cmd) error {
	pid, ok := n.InitPID()
	if !ok {
		return fmt.Errorf("start %s: %s is off", filepath.Base(cmd.Path), n.Name)
	}
	cmd.Args = append([]string{n.Program, EnterCommand, n.Name, strconv.Itoa(pid), cmd.Path}, cmd.Args...)
	cmd.Path = n.Program
	done := make(chan error)
	go func() {
		// A process enters a pid namespace only by being born there. This thread ends with its goroutine.
		runtime.LockOSThread()
		done <- func() error {
			if err := setns(pid, "pid", unix.CLONE_NEWPID); err != nil {
				return err
			}
			return cmd.Start()
		}()
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("start %s on %s: %w", cmd.Path, n.Name, err)
	}
	return nil
}

// Enter is the first half of a program that Start starts: it moves the process into the node and becomes the program.
func Enter(node string, initPID int, path string, args []string) error {
	runtime.LockOSThread()
	hierarchies, err := readHierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := h.join(node); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("enter %s: %w", node, err)
	}
	for _, ns := range []struct {
		name string
		flag int
	}{
		{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC}, {"cgroup", unix.CLONE_NEWCGROUP},
		{"mnt", unix.CLONE_NEWNS}, // last: it takes /proc away
	} {
		if err := setns(initPID, ns.name, ns.flag); err != nil {
			return fmt.Errorf("enter %s: %w", node, err)
		}
	}
	return unix.Exec(path, args, os.Environ())
}

func setns(pid int, name string, flag int) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), flag); err != nil {
		return fmt.Errorf("enter %s namespace: %w", name, err)
	}
	return nil
}

// Run runs cmd in a network namespace until it ends.
func Run(namespace string, cmd *exec.Cmd) error {
	if err := topology.Start(namespace, cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// EnterArgs is Enter with the arguments that Start gives to EnterCommand: node, pid, path, and the program's arguments.
func EnterArgs(args []string) error {
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("enter %s: %w", args[0], err)
	}
	return Enter(args[0], pid, args[2], args[3:])
}

// Become replaces the calling process by a waiting parent of a program on the node, and ends as the program does.
func (n Node) Become(args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("run on %s: %w", n.Name, err)
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// What a terminal sends goes to the program; it decides.
	signal.Ignore(unix.SIGINT, unix.SIGQUIT)
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// BecomeIn replaces the calling process by a program in a network namespace.
func BecomeIn(namespace string, args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("run in %s: %w", namespace, err)
	}
	if err := topology.Enter(namespace); err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}

// Processes lists the machine's pids of all processes on the node, pods included: those in its cgroups.
func (n Node) Processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err == nil && inCgroup(string(data), "/"+cgroupRoot+"/"+n.Name) {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// inCgroup says whether one of the lines of a process's /proc/PID/cgroup names the cgroup or one below it.
func inCgroup(lines, cgroup string) bool {
	for line := range strings.Lines(lines) {
		_, path, _ := strings.Cut(strings.TrimSpace(line), ":/")
		if path = "/" + path; path == cgroup || strings.HasPrefix(path, cgroup+"/") {
			return true
		}
	}
	return false
}
