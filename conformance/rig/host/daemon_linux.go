package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/internal/lab/topology"
)

// A Daemon is a program that outlives the rig. Its pid file tells it from another process that got its pid later.
type Daemon struct {
	Args []string
	// Log and PIDFile are its files.
	Log, PIDFile string
	// Namespace is where it runs, if Node is nil.
	Namespace string
	Node      *Node
}

type pidFile struct {
	PID   int
	Start uint64
}

// Start starts the daemon, unless it runs.
func (d Daemon) Start() error {
	if _, ok := d.PID(); ok {
		return nil
	}
	for _, f := range []string{d.Log, d.PIDFile} {
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			return fmt.Errorf("start %s: %w", d.Args[0], err)
		}
	}
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.Args[0], err)
	}
	defer log.Close()
	cmd := exec.Command(d.Args[0], d.Args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if d.Node != nil {
		err = d.Node.Start(cmd)
	} else {
		err = topology.Start(d.Namespace, cmd)
	}
	if err != nil {
		return err
	}
	start, ok := topology.StartTime(cmd.Process.Pid)
	if !ok {
		return fmt.Errorf("start %s: it ended at once: see %s", d.Args[0], d.Log)
	}
	if err := writePID(d.PIDFile, pidFile{PID: cmd.Process.Pid, Start: start}); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", d.Args[0], err), cmd.Process.Kill())
	}
	go func() { _ = cmd.Wait() }() // it shall be no zombie while the rig lasts
	return nil
}

// PID is the daemon's pid; ok is false when it does not run.
func (d Daemon) PID() (pid int, ok bool) {
	f, err := readPID(d.PIDFile)
	if err != nil {
		return 0, false
	}
	start, ok := topology.StartTime(f.PID)
	return f.PID, ok && start == f.Start
}

// Kill kills the daemon at once and waits until it is gone.
func (d Daemon) Kill() error {
	f, err := readPID(d.PIDFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return topology.KillProcess(f.PID, f.Start)
}

func writePID(file string, f pidFile) error {
	data, err := json.Marshal(f)
	if err == nil {
		err = atomicfile.Write(file, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

func readPID(file string) (f pidFile, err error) {
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return f, fmt.Errorf("read pid file: %w", err)
	}
	return f, nil
}

// Memory is the memory of processes in bytes. A page that several use counts in parts (proc_pid_smaps(5), Pss).
func Memory(pids []int) (bytes uint64) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			var kib uint64
			if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kib); n == 1 {
				bytes += kib << 10
			}
		}
	}
	return bytes
}
