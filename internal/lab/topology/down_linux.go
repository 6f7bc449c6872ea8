package topology

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Namespaces lists the names of the lab's namespaces that exist, sorted.
func Namespaces(lab string) ([]string, error) {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var out []string
	for _, e := range entries {
		if owns(lab, e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Down kills all processes in the lab's namespaces and removes the namespaces, and all links and rules with them. It
// may be repeated. Processes of other namespaces are not touched.
func Down(lab string) error {
	names, err := Namespaces(lab)
	if err != nil {
		return err
	}
	return Remove(names)
}

// Remove kills all processes in the named namespaces and removes these. Names that are not there are no error.
func Remove(names []string) error {
	errs := []error{killAll(names, 10*time.Second)}
	for _, name := range names {
		errs = append(errs, DeleteNamespace(name))
	}
	return errors.Join(errs...)
}

// killAll kills until no process is left: one that is being killed may have started another.
func killAll(names []string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		pids := Processes(names)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v in the lab's namespaces do not end", pids)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Processes lists the processes, other than the caller, in the named network namespaces. Zombies are in none.
func Processes(names []string) []int {
	inodes := map[uint64]bool{}
	for _, name := range names {
		var st unix.Stat_t
		// A name that is no mount has the inode of a plain file, which no process has for a namespace.
		if err := unix.Stat(Path(name), &st); err == nil {
			inodes[st.Ino] = true
		}
	}
	return inNamespaces(inodes)
}

// inNamespaces lists the processes, other than the caller, with a network namespace of these inodes. Zombies have none.
func inNamespaces(inodes map[uint64]bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil || len(inodes) == 0 {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		link, err := os.Readlink("/proc/" + e.Name() + "/ns/net")
		if err != nil {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(link, "net:["), "]"), 10, 64)
		if err == nil && inodes[inode] {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// StartTime is the start time of a process in clock ticks since boot: together with the pid it names a process for good
// (proc_pid_stat(5), field 22). ok is false when there is no such process, or it is a zombie.
func StartTime(pid int) (ticks uint64, ok bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	return parseStartTime(stat)
}

// parseStartTime reads proc_pid_stat(5). A zombie whose other threads have not ended yet is no dead process: it holds its
// files, and the ports on which it listens.
func parseStartTime(stat []byte) (ticks uint64, ok bool) {
	const state, threads, start = 0, 17, 19 // fields, of those after the name
	// The command name in parentheses may hold spaces.
	_, rest, found := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	fields := strings.Fields(string(rest))
	if !found || len(fields) <= start || fields[state] == "Z" && fields[threads] == "1" {
		return 0, false
	}
	ticks, err := strconv.ParseUint(fields[start], 10, 64)
	return ticks, err == nil
}

// KillProcess kills the process with this pid if it has this start time, and waits until it is gone.
func KillProcess(pid int, start uint64) error {
	for range 500 {
		now, ok := StartTime(pid)
		if !ok || now != start {
			return nil
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("process %d does not end", pid)
}
