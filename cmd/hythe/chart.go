package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/charts"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/install"
)

// newChartCommand is what the containers of charts/hythe run besides the parts themselves. The images have no shell.
func newChartCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "chart",
		Short:  "Steps of the Helm chart's hooks and init containers",
		Hidden: true,
	}
	cmd.AddCommand(newOwnCommand(), newHoldCommand(), newDefinitionsCommand(), newStopCommand(), newGoneCommand(), newCleanedCommand())
	return cmd
}

func newOwnCommand() *cobra.Command {
	var uid int
	var private []string
	cmd := &cobra.Command{
		Use:     "own DIR...",
		Short:   "Make folders that one user and its group alone may open",
		Example: "  hythe chart own /run/hythe/gateway --private /run/hythe/gateway-cache --uid 65532",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var errs []error
			for _, dir := range args {
				errs = append(errs, own(dir, uid, 0o750))
			}
			for _, dir := range private {
				errs = append(errs, own(dir, uid, 0o700))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().IntVar(&uid, "uid", 65532, "user and group that own them")
	cmd.Flags().StringArrayVar(&private, "private", nil, "a folder that the group may not open either; may be repeated")
	return cmd
}

// own needs no capability but CHOWN: the mode is set before the folder is given away.
func own(dir string, uid int, mode fs.FileMode) error {
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at folder: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) == uid && info.Mode().Perm() == mode {
		return nil
	}
	// Another owner's folder is taken back first, as its mode is not ours to set.
	for _, step := range []func() error{
		func() error { return os.Chown(dir, os.Geteuid(), os.Getegid()) },
		func() error { return os.Chmod(dir, mode) },
		func() error { return os.Chown(dir, uid, uid) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("give folder to user %d: %w", uid, err)
		}
	}
	return nil
}

func newHoldCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hold",
		Short: "Do nothing until told to end: the pod is ready when its init containers are done",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			<-cmd.Context().Done()
			return nil
		},
	}
}

// A chartStep talks to the API server, for a limited time.
type chartStep struct {
	kubeconfig string
	apiservers []string
	namespace  string
	deadline   time.Duration
}

func (s *chartStep) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "how to reach the API server (default: as the pod that this runs in)")
	f.StringArrayVar(&s.apiservers, "apiserver", nil, "URL of an API server, https://HOST:PORT; may be repeated")
	f.StringVar(&s.namespace, "namespace", "hythe-system", "namespace of the chart's release")
	f.DurationVar(&s.deadline, "deadline", 2*time.Minute, "wait no longer")
}

func (s *chartStep) run(ctx context.Context, do func(context.Context, *install.Cluster) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.deadline)
	defer cancel()
	config, err := client.Config(s.kubeconfig)
	if err != nil {
		return err
	}
	if err := client.Servers(config, s.apiservers); err != nil {
		return err
	}
	cluster, err := install.New(config)
	if err != nil {
		return err
	}
	return do(ctx, cluster)
}

func newDefinitionsCommand() *cobra.Command {
	var s chartStep
	cmd := &cobra.Command{
		Use:   "definitions",
		Short: "Bring Hythe's CustomResourceDefinitions to this version, which helm upgrade does not do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			documents, err := charts.Definitions()
			if err != nil {
				return err
			}
			return s.run(cmd.Context(), func(ctx context.Context, c *install.Cluster) error { return c.Definitions(ctx, documents) })
		},
	}
	s.addFlags(cmd)
	return cmd
}

func newStopCommand() *cobra.Command {
	var s chartStep
	deployment, selector := "", ""
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Scale a Deployment to none, and wait for the end of its pods",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.run(cmd.Context(), func(ctx context.Context, c *install.Cluster) error {
				if err := c.Stop(ctx, s.namespace, deployment); err != nil {
					return err
				}
				return c.Gone(ctx, s.namespace, selector)
			})
		},
	}
	s.addFlags(cmd)
	cmd.Flags().StringVar(&deployment, "deployment", "hythe-controller", "the Deployment")
	cmd.Flags().StringVar(&selector, "selector", "", "labels of its pods")
	_ = cmd.MarkFlagRequired("selector")
	return cmd
}

func newGoneCommand() *cobra.Command {
	var s chartStep
	selector, lease := "", ""
	cmd := &cobra.Command{
		Use:   "gone",
		Short: "Wait until no pod of Hythe runs any more, and delete their Reports and their Lease",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.run(cmd.Context(), func(ctx context.Context, c *install.Cluster) error {
				if err := c.Gone(ctx, s.namespace, selector); err != nil {
					return err
				}
				return errors.Join(c.DeleteReports(ctx), c.DeleteLease(ctx, s.namespace, lease))
			})
		},
	}
	s.addFlags(cmd)
	cmd.Flags().StringVar(&selector, "selector", "", "labels of the pods")
	cmd.Flags().StringVar(&lease, "lease", "hythe-controller", "the controllers' Lease")
	_ = cmd.MarkFlagRequired("selector")
	return cmd
}

func newCleanedCommand() *cobra.Command {
	var s chartStep
	name := ""
	cmd := &cobra.Command{
		Use:   "cleaned",
		Short: "Wait until the cleanup has run on each node that is Ready",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.run(cmd.Context(), func(ctx context.Context, c *install.Cluster) error {
				skipped, err := c.DaemonSetReady(ctx, s.namespace, name)
				if err == nil && len(skipped) > 0 {
					fmt.Fprintf(cmd.OutOrStdout(), "not cleaned, as they are not Ready: %s. When they are back, run there: hythe node cleanup --purge --force\n",
						strings.Join(skipped, ", "))
				}
				return err
			})
		},
	}
	s.addFlags(cmd)
	cmd.Flags().StringVar(&name, "daemonset", "hythe-cleanup", "the DaemonSet that cleans nodes")
	return cmd
}
