package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hythe.dev/hythe/internal/lab/topology"
)

const (
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 5 * time.Second
	// steady is how long a process must run to be thought well.
	steady = 10 * time.Second
)

// A Process is a command that is kept running. The fields are set before Run and not changed afterwards.
type Process struct {
	// Name is for people, for example "node1/gateway".
	Name string
	// Namespace is the name of the network namespace to run in.
	Namespace string
	// Command holds the path of the program and its arguments.
	Command []string
	Env     []string
	// LogFile gets what the process prints.
	LogFile string
	// PIDs is a folder that records the running process, so that it can be found after a crash of the lab.
	PIDs string
	// Grace is the time from SIGTERM to SIGKILL.
	Grace time.Duration
	// Socket is removed before each start: a killed process leaves it behind.
	Socket string
	Log    *slog.Logger

	mu       sync.Mutex
	pid      int
	since    time.Time
	restarts int
	held     bool
	released chan struct{}
	ordered  bool   // the process was killed or restarted by order: it did nothing wrong
	program  string // replaces the program of Command, if set
}

// A ProcessStatus is how a Process is.
type ProcessStatus struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"` // 0 when it does not run
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Held     bool      `json:"held"`
}

// Status tells how the process is.
func (p *Process) Status() ProcessStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ProcessStatus{Name: p.Name, PID: p.pid, Since: p.since, Restarts: p.restarts, Held: p.held}
}

// Kill sends a signal. With hold, the process is not started again before Release.
func (p *Process) Kill(sig syscall.Signal, hold bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hold && !p.held {
		p.held = true
		p.released = make(chan struct{})
	}
	if p.pid == 0 {
		return nil
	}
	p.ordered = true
	if err := syscall.Kill(p.pid, sig); err != nil {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	return nil
}

// Restart asks the process to end, and kills it after its grace period. It is started again; if program is not empty,
// as that one from then on.
func (p *Process) Restart(program string) error {
	p.mu.Lock()
	pid := p.pid
	if program != "" {
		p.program = program
	}
	p.mu.Unlock()
	if pid == 0 {
		return nil
	}
	start, _ := topology.StartTime(pid)
	time.AfterFunc(p.Grace, func() { _ = topology.KillProcess(pid, start) })
	return p.Kill(syscall.SIGTERM, false)
}

// Release lets a held process start again.
func (p *Process) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		p.held = false
		close(p.released)
	}
}

// Run keeps the process running until ctx is done, and then ends it.
func (p *Process) Run(ctx context.Context) {
	backoff := firstBackoff
	for {
		if !p.waitReleased(ctx) {
			return
		}
		started := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		p.Log.Warn("process ended", "process", p.Name, "error", err)
		p.mu.Lock()
		if time.Since(started) > steady || p.ordered {
			backoff = firstBackoff
		}
		p.ordered = false
		p.mu.Unlock()
		if !sleep(ctx, backoff) {
			return
		}
		backoff = min(2*backoff, lastBackoff)
		p.mu.Lock()
		p.restarts++
		p.mu.Unlock()
	}
}

func (p *Process) waitReleased(ctx context.Context) bool {
	p.mu.Lock()
	held, released := p.held, p.released
	p.mu.Unlock()
	if !held {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-released:
		return true
	}
}

// once runs the process to its end.
func (p *Process) once(ctx context.Context) error {
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	if p.Socket != "" {
		_ = os.Remove(p.Socket)
	}
	p.mu.Lock()
	program := cmp.Or(p.program, p.Command[0])
	p.mu.Unlock()
	cmd := exec.Command(program, p.Command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.Env...)
	// Signals of a terminal are for the lab, not for what runs in it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := topology.Start(p.Namespace, cmd); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	forget := p.record(cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = waitOrEnd(ctx, cmd.Process, ended, p.Grace)
	forget()
	return err
}

// waitOrEnd waits for a process; when ctx is done it asks it to end and, after grace, kills it.
func waitOrEnd(ctx context.Context, process *os.Process, ended <-chan error, grace time.Duration) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	_ = process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
	}
	_ = process.Kill()
	return errors.Join(errors.New("killed after its grace period"), <-ended)
}

// record notes the pid, in memory and in a file; the returned function takes both back.
func (p *Process) record(pid int) (forget func()) {
	file := filepath.Join(p.PIDs, strconv.Itoa(pid))
	if start, ok := topology.StartTime(pid); ok {
		_ = os.WriteFile(file, []byte(strconv.FormatUint(start, 10)), 0o644)
	}
	p.set(pid)
	return func() {
		p.set(0)
		_ = os.Remove(file)
	}
}

func (p *Process) set(pid int) {
	p.mu.Lock()
	p.pid, p.since = pid, time.Now()
	p.mu.Unlock()
}

// KillRecorded kills the processes recorded in a folder that still run.
func KillRecorded(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		start, err := strconv.ParseUint(string(text), 10, 64)
		if err == nil {
			errs = append(errs, topology.KillProcess(pid, start))
		}
	}
	return errors.Join(errs...)
}

// sleep waits, and says whether ctx is still going on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
