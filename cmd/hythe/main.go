// Command hythe is the edge of a Kubernetes cluster: controller, gateway and node, and the tools around them.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version string

// versionText falls back to what the Go toolchain recorded.
func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return info.Main.Version
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := newCommand().ExecuteContext(ctx)
	stop()
	os.Exit(exitCode(err))
}

// An exitError is an error with an exit code of its own. An empty text is not printed: all was said already.
type exitError struct {
	code int
	text string
}

func (e exitError) Error() string { return e.text }

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	code := 1
	if exit, ok := errors.AsType[exitError](err); ok {
		code = exit.code
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "hythe: "+text)
	}
	return code
}

func newCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hythe",
		Short: "The edge of a Kubernetes cluster in one bundle",
		Long: `Hythe takes requests from the internet to the pods of a Kubernetes cluster: Ingress by Envoy,
LoadBalancer addresses announced by ARP, a node overlay, a CNI plugin and the Service datapath.

Try it without a cluster:
  hythe lab demo              a cluster of network namespaces, and a request through all of it
  hythe translate -f FILE     what an Ingress would serve, offline`,
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddGroup(
		&cobra.Group{ID: "parts", Title: "Parts of a cluster's edge:"},
		&cobra.Group{ID: "tools", Title: "Tools:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			cmd.AddCommand(c)
		}
	}
	add("parts", newControllerCommand(), newGatewayCommand(), newNodeCommand(), newRunCommand())
	add("tools", newGetCommand(), newCheckCommand(), newBundleCommand(), newTraceCommand(), newTranslateCommand(), newLabCommand(), newChartCommand())
	return cmd
}

// newLogger makes the logger of a process: text on standard error, with the component's name.
func newLogger(component string, level slog.Level) *slog.Logger {
	handler := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	return slog.New(handler).With("component", component)
}
