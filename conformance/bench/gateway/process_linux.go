package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// A process is a program that runs beside the benchmark and ends with it.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start runs a program; output takes what it says, nil for a file in dir.
func start(dir, name string, output io.Writer, command ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{}), cmd: exec.Command(command[0], command[1:]...)}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = io.Writer(log), log
	if output != nil {
		p.cmd.Stdout = output
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() { // the kernel kills it when the thread that started it ends
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop asks it to end, and kills it if it has not after five seconds.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// until asks again and again until ask succeeds, the process has ended, or it took a minute.
func (p *process) until(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it took more than a minute"))
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("wait for %s: %s ended: %s", what, p.name, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w\n%s", what, context.Cause(ctx), err, p.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail is the end of its log.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
}

// ownNamespace runs this program again in a network namespace of its own, in which all addresses of pods are local, and
// says whether that was done. The addresses of pods stand on no interface, so no address of a pod is one of the node.
func ownNamespace() (done bool, err error) {
	const marker = "HYTHE_BENCH_NAMESPACE"
	if os.Getenv(marker) != "" {
		for _, args := range [][]string{{"link", "set", "lo", "up"}, {"route", "add", "local", podRange, "dev", "lo"}} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				return false, fmt.Errorf("ip %v: %w: %s", args, err, out)
			}
		}
		// Ports of clients are others than those of all servers here.
		return false, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("30000 60999"), 0o644)
	}
	self, err := os.Executable()
	if err != nil {
		return false, fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread()
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(max(1, exit.ExitCode())) // it has said why
		}
		return true, fmt.Errorf("make network namespace: %w", err)
	}
	return true, nil
}
