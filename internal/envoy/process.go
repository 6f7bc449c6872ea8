package envoy

import (
	"cmp"
	"context"
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
		// At each change of a host it warns that the proto file of our stamps' matcher is a work in progress.
		"--component-log-level", "misc:error",
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

// stopTimeout is how long Envoy has to end by itself before it is killed.
const stopTimeout = 5 * time.Second

// A Process is a running Envoy. It is Wait that takes note of its end, so it must be called.
type Process struct{ cmd *exec.Cmd }

// Start writes the bootstrap and starts Envoy in the caller's network namespace. When ctx is done Envoy is told to
// stop, and killed if it has not after five seconds.
func Start(ctx context.Context, options Options) (*Process, error) {
	if err := WriteBootstrap(options); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, options.Path, Args(options)...)
	cmd.Stdout, cmd.Stderr = options.Output, options.Output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	return &Process{cmd: cmd}, nil
}

// Pid is the id of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Wait waits until Envoy has ended and says why.
func (p *Process) Wait() error {
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("run Envoy: %w", err)
	}
	return nil
}
