package envoy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Options say how an Envoy process is run.
type Options struct {
	// Path of the Envoy binary.
	Path string
	// BootstrapFile is the path of the file that Start writes the bootstrap to, and Args names. Its name must end
	// in .yaml.
	BootstrapFile string
	Bootstrap     BootstrapOptions
	// Concurrency is the number of worker threads; 0 is one for each processor.
	Concurrency int
	// DrainTime is how long connections live on whose listener or filter chain was changed or removed;
	// default 30 s. Envoy's own default is 10 min, as long as it would keep two of everything.
	DrainTime time.Duration
	// LogLevel is one of Envoy's; default "warning".
	LogLevel string
	// Output takes Envoy's standard output and error; nil discards them.
	Output io.Writer
}

// Args is the command line of Envoy, without the binary's own path.
func Args(options Options) []string {
	args := []string{
		"--config-path", options.BootstrapFile,
		"--drain-time-s", strconv.Itoa(int(cmp.Or(options.DrainTime, 30*time.Second).Seconds())),
		"--log-level", cmp.Or(options.LogLevel, "warning"),
		// There is no second Envoy on the node that could take over; and the sockets for it are abstract ones,
		// which other network namespaces would not see.
		"--disable-hot-restart",
	}
	if options.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(options.Concurrency))
	}
	return args
}

// WriteBootstrap writes the bootstrap to options.BootstrapFile.
func WriteBootstrap(options Options) error {
	bootstrap, err := Bootstrap(options.Bootstrap)
	if err != nil {
		return err
	}
	if err := os.WriteFile(options.BootstrapFile, bootstrap, 0o640); err != nil {
		return fmt.Errorf("write bootstrap: %w", err)
	}
	return nil
}

// A Process is a running Envoy.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start writes the bootstrap and starts Envoy in the caller's network namespace. When ctx is done Envoy is told to
// stop, and killed if it has not after five seconds.
func Start(ctx context.Context, options Options) (*Process, error) {
	if err := WriteBootstrap(options); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, options.Path, Args(options)...)
	cmd.Stdout, cmd.Stderr = options.Output, options.Output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when Envoy has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until Envoy has ended and says why.
func (p *Process) Wait() error {
	<-p.done
	if p.err != nil {
		return fmt.Errorf("run Envoy: %w", p.err)
	}
	return nil
}

// Stop tells Envoy to stop, kills it if it has not after five seconds, and waits for it.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop Envoy: %w", err)
	}
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	return nil
}
