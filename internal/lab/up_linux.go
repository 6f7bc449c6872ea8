package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/lab/kubelet"
	"hythe.dev/hythe/internal/lab/topology"
)

// ErrUp is returned by Up when the lab runs already.
var ErrUp = errors.New("the lab is up already: end it with hythe lab down")

// lockWait is how long a lab that goes down may take to give its lock back.
const lockWait = 500 * time.Millisecond

// Options say how to start a lab.
type Options struct {
	// Manifests is a folder of manifests.
	Manifests string
	// Source is SourceFiles (also if empty) or SourceAPI.
	Source string
	Fill   bool
	// Out gets the progress, for people.
	Out io.Writer
	// Wait bounds the time until all is ready.
	Wait time.Duration
}

// Up starts the lab's supervisor in the background and waits until all is ready. What is left of a lab that crashed is
// removed first. When not all is ready in time, the error says what is missing and the lab stays up.
func (l Lab) Up(ctx context.Context, o Options) error {
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root: it makes network namespaces")
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	err = l.clean(true)
	unlock()
	if err != nil {
		return fmt.Errorf("remove what is left of a former lab: %w", err)
	}
	supervisor, err := l.startSupervisor(o)
	if err != nil {
		return err
	}
	return l.waitUp(ctx, o, supervisor)
}

// lock takes the lab's lock; the returned function gives it back. The supervisor holds it while it runs.
func (l Lab) lock() (unlock func(), err error) {
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make lab folder: %w", err)
	}
	f, err := os.OpenFile(l.lockFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the lab: %w", err)
	}
	// A supervisor that was just killed holds the lock until its last thread is gone.
	for deadline := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(deadline) {
			continue
		}
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrUp
		}
		return nil, fmt.Errorf("lock the lab: %w", err)
	}
}

// startSupervisor runs "hythe lab serve" in a session of its own. The channel gets its end.
func (l Lab) startSupervisor(o Options) (<-chan error, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	if err := os.RemoveAll(l.Logs()); err != nil {
		return nil, fmt.Errorf("remove old logs: %w", err)
	}
	if err := os.MkdirAll(l.Logs(), 0o755); err != nil {
		return nil, fmt.Errorf("make log folder: %w", err)
	}
	log, err := os.Create(l.supervisorLog())
	if err != nil {
		return nil, fmt.Errorf("make supervisor's log: %w", err)
	}
	defer log.Close()
	manifests, err := filepath.Abs(o.Manifests)
	if err != nil {
		return nil, fmt.Errorf("find manifests: %w", err)
	}
	if _, err := os.Stat(manifests); err != nil {
		return nil, fmt.Errorf("find manifests: %w", err)
	}
	cmd := exec.Command(self, "lab", "serve", "--name", l.Name, "--dir", l.Dir, "--manifests", manifests, "--fill="+strconv.FormatBool(o.Fill),
		"--source", cmp.Or(o.Source, SourceFiles))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, nil
}

func (l Lab) supervisorLog() string { return filepath.Join(l.Logs(), "lab.log") }

// waitUp waits until nothing is waited for, and tells of the progress.
func (l Lab) waitUp(ctx context.Context, o Options, supervisor <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	progress := &progress{out: o.Out, started: time.Now()}
	client := l.Client()
	last := []string{"the supervisor does not answer"}
	for {
		if st, err := client.Status(ctx); err == nil {
			progress.tell(st)
			if last = st.Waiting; len(last) == 0 {
				return nil
			}
		}
		select {
		case err := <-supervisor:
			text, _ := os.ReadFile(l.supervisorLog())
			return fmt.Errorf("the supervisor ended: %w\n%s", err, tail(string(text), 10))
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s: %s (logs: %s)", o.Wait, strings.Join(last, "; "), l.Logs())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// A progress tells what has become ready, each thing once.
type progress struct {
	out     io.Writer
	started time.Time
	stage   int
}

func (p *progress) tell(st Status) {
	processes, pods, owned, announced := 0, 0, 0, ""
	for _, x := range st.Processes {
		if x.Ready {
			processes++
		}
	}
	for _, x := range st.Pods {
		if x.Ready {
			pods++
		}
	}
	for _, v := range st.VIPs {
		if len(v.Owners) == 1 {
			owned++
			announced += fmt.Sprintf(" %s on %s", v.Address, v.Owners[0])
		}
	}
	stages := []struct {
		done bool
		text string
	}{
		{len(st.Processes) > 0, "machines are up: client, router, LAN, control, three nodes"},
		{processes == len(st.Processes), fmt.Sprintf("%d processes are ready", processes)},
		{pods == len(st.Pods) && pods > 0, fmt.Sprintf("%d pods are ready", pods)},
		{owned > 0 && owned == len(st.VIPs), "announced:" + announced},
	}
	for p.stage < len(stages) && stages[p.stage].done {
		fmt.Fprintf(p.out, "  %6.1fs  %s\n", time.Since(p.started).Seconds(), stages[p.stage].text)
		p.stage++
	}
}

// Down ends the lab, whatever state it is in: afterwards no process, namespace, link, rule, mount or socket of it is
// left. Only logs stay. It may be repeated.
func (l Lab) Down() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root")
	}
	return l.clean(false)
}

// recordSupervisor notes the calling process as the lab's supervisor.
func (l Lab) recordSupervisor() error {
	start, _ := topology.StartTime(os.Getpid())
	if err := os.WriteFile(l.pidFile(), fmt.Appendf(nil, "%d %d\n", os.Getpid(), start), 0o644); err != nil {
		return fmt.Errorf("record supervisor: %w", err)
	}
	return nil
}

// clean ends the supervisor first, so that nothing is started again. With keep, the Services' addresses stay.
func (l Lab) clean(keep bool) error {
	var errs []error
	if text, err := os.ReadFile(l.pidFile()); err == nil {
		var pid int
		var start uint64
		if n, _ := fmt.Sscan(string(text), &pid, &start); n == 2 && pid != os.Getpid() {
			errs = append(errs, topology.KillProcess(pid, start))
		}
	}
	errs = append(errs, kubelet.KillRecorded(l.pids()), topology.Down(l.Name), l.removeFiles(keep))
	return errors.Join(errs...)
}
