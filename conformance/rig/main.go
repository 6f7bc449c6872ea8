package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		stop()
		if exit := new(exec.ExitError); errors.As(err, &exit) && len(os.Args) > 1 && (os.Args[1] == "exec" || os.Args[1] == "shell") {
			os.Exit(exit.ExitCode()) // the command has said why
		}
		fmt.Fprintln(os.Stderr, "rig:", err)
		os.Exit(1)
	}
}

// options are the flags of all commands.
type options struct {
	dir, source string
}

func command() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use: "rig", Short: "A real Kubernetes cluster on one machine", SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	cmd.PersistentFlags().StringVar(&o.dir, "dir", "/var/tmp/hythe-cluster", "folder of the running cluster")
	cmd.PersistentFlags().StringVar(&o.source, "source", ".", "folder of the product's sources: chart, images, values")
	cmd.AddCommand(upCommand(o), downCommand(o), statusCommand(o), installCommand(o), shellCommand(o), execCommand(o))
	cmd.AddCommand(changeCommands(o)...)
	cmd.AddCommand(internalCommands()...)
	return cmd
}

// open is a rig for a cluster that may be there.
func (o *options) open(c cluster.Cluster, out io.Writer) (*rig, error) {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return nil, err
	}
	source, err := filepath.Abs(o.source)
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	if c.Binaries, err = binaries(); err != nil {
		return nil, err
	}
	return &rig{Cluster: c, source: source, helm: "helm", out: out, begun: time.Now()}, nil
}

func upCommand(o *options) *cobra.Command {
	var (
		nodes   int
		flavour string
		bare    bool
		servers int
		dual    bool
	)
	cmd := &cobra.Command{
		Use: "up", Short: "Start the cluster and install Hythe", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			unlock, err := lock()
			if err != nil {
				return err
			}
			defer unlock()
			c, err := cluster.New("", "", flavour, nodes)
			if err != nil {
				return err
			}
			if servers < 1 || servers > 2 {
				return fmt.Errorf("%d API servers: want 1 or 2", servers)
			}
			c.TwoAPIServers, c.DualStack = servers == 2, dual
			r, err := o.open(c, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			if err := r.up(cmd.Context(), bare); err != nil {
				return r.hint(err)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 3, "how many nodes")
	cmd.Flags().StringVar(&flavour, "flavour", cluster.Hythe, "hythe: Hythe alone; peer: reference plugins and kube-proxy; guest: Hythe as gateway and load balancer beside these")
	cmd.Flags().IntVar(&servers, "apiservers", 1, "how many API servers: of two, all but Hythe use the second")
	cmd.Flags().BoolVar(&dual, "dual", false, "nodes, pods and Services of both families")
	cmd.Flags().BoolVar(&bare, "bare", false, "do not install Hythe")
	return cmd
}

func downCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Stop the cluster and remove everything of it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			unlock, err := lock()
			if err != nil {
				return err
			}
			defer unlock()
			r, err := o.open(cluster.Cluster{}, cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return r.down()
		},
	}
}

// running is a rig for the cluster that runs.
func (o *options) running(out io.Writer) (*rig, error) {
	c, ok, err := load(o.dir)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("no cluster in %s: start one by make cluster", o.dir)
	}
	return o.open(c, out)
}

func statusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what runs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := o.running(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return r.status(cmd.Context())
		},
	}
}

func installCommand(o *options) *cobra.Command {
	return o.change("install", "Load Hythe's images, and install or upgrade the chart", cobra.NoArgs, func(ctx context.Context, r *rig, _ []string) error {
		if err := r.loadProduct(ctx); err != nil {
			return err
		}
		return r.install(ctx)
	})
}

func shellCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "shell MACHINE", Short: "Open a shell on client, router, lan, control or a node", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := o.running(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return r.become(args[0], []string{"bash"})
		},
	}
}

func execCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "exec MACHINE -- COMMAND...", Short: "Run a command on a machine", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := o.running(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return r.become(args[0], args[1:])
		},
	}
}

// change is a command that changes the running cluster.
func (o *options) change(use, short string, args cobra.PositionalArgs, f func(context.Context, *rig, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			unlock, err := lock()
			if err != nil {
				return err
			}
			defer unlock()
			r, err := o.running(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return f(cmd.Context(), r, args)
		},
	}
}

func changeCommands(o *options) []*cobra.Command {
	one := cobra.ExactArgs(1)
	return []*cobra.Command{
		o.change("kill PART", "Kill a daemon (etcd, node1/kubelet), which stays dead, or cut a node's power", one,
			func(_ context.Context, r *rig, args []string) error { return r.kill(args[0]) }),
		o.change("restart PART", "Kill a daemon and start it again, or reboot a node", one,
			func(ctx context.Context, r *rig, args []string) error { return r.restart(ctx, args[0]) }),
		o.change("reboot NODE...", "Cut the power of nodes, all at once, and boot them", cobra.MinimumNArgs(1),
			func(ctx context.Context, r *rig, args []string) error {
				var nodes []cluster.Node
				for _, name := range args {
					n, ok := r.Node(name)
					if !ok {
						return fmt.Errorf("no node %q", name)
					}
					nodes = append(nodes, n)
				}
				return r.reboot(ctx, nodes...)
			}),
		o.change("add-node", "Add a node", cobra.NoArgs,
			func(ctx context.Context, r *rig, _ []string) error { return r.addNode(ctx) }),
		o.change("readdress NODE ADDRESS", "Give a node another address", cobra.ExactArgs(2),
			func(ctx context.Context, r *rig, args []string) error {
				address, err := netip.ParseAddr(args[1])
				if err != nil {
					return err
				}
				return r.readdress(ctx, args[0], address)
			}),
		o.change("renumber NODE", "Give a node another pod CIDR: its Node is deleted and registers anew", one,
			func(ctx context.Context, r *rig, args []string) error { return r.renumber(ctx, args[0]) }),
		o.change("remove-node NODE", "Take a node away for good", one,
			func(ctx context.Context, r *rig, args []string) error { return r.removeNode(ctx, args[0]) }),
	}
}

// internalCommands are those with which the rig starts itself.
func internalCommands() []*cobra.Command {
	return []*cobra.Command{
		{
			Use: host.InitCommand, Hidden: true, Args: cobra.ExactArgs(2),
			RunE: func(_ *cobra.Command, args []string) error { return host.Init(args[0], args[1]) },
		},
		{
			Use: host.EnterCommand, Hidden: true, Args: cobra.MinimumNArgs(4), DisableFlagParsing: true,
			RunE: func(_ *cobra.Command, args []string) error { return host.EnterArgs(args) },
		},
	}
}
