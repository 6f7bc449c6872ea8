package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/lb/speaker"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// A cleanup takes Hythe off a node.
type cleanup struct {
	dataDir, runDir, cniConfDir string
	cniBinDir                   string
	admin                       string
	force, purge                bool
	wait                        time.Duration
}

func newCleanupCommand() *cobra.Command {
	var c cleanup
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Take away what hythe node put on this node: pods lose their network",
		Long: `What the agent put into the kernel stays when it ends, so that an upgrade costs no connection. This command
takes it away: the CNI configuration, the table inet hythe, the overlay, the links of all pods, and what is kept
about addresses and VIPs. End the agent first, and drain the node: its pods lose their network.

Sysctls that nobody changed since are what they were before, but forwarding stays on where something else forwards too:
a bridge or tunnel that is up, or the configuration of another CNI plugin. Left alone is, without --purge, the plugin's binary, which
the container runtime needs to remove the pods.`,
		Example: "  kubectl drain node1 && hythe node cleanup",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.dataDir, "data", "/var/lib/hythe", "the agent's --data")
	f.StringVar(&c.runDir, "run", "/run/hythe", "the agent's --run")
	f.StringVar(&c.cniConfDir, "cni-conf-dir", "/etc/cni/net.d", "the agent's --cni-conf-dir")
	f.StringVar(&c.admin, "admin", "127.0.0.1:9903", "the agent's --admin: nothing is done while it answers there")
	f.BoolVar(&c.force, "force", false, "go on although pods are attached")
	f.BoolVar(&c.purge, "purge", false, "remove --data, --run and the plugin's binary too")
	f.StringVar(&c.cniBinDir, "cni-bin-dir", "/opt/cni/bin", "the agent's --cni-bin-dir")
	f.DurationVar(&c.wait, "wait", 0, "wait so long for the agent's end, and for pods to be detached unless --force is given")
	return cmd
}

func (c *cleanup) run(ctx context.Context, out io.Writer) error {
	if err := c.await(ctx); err != nil {
		return err
	}
	links, err := link.New(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer links.Close()
	var errs []error
	for _, step := range []struct {
		name string
		do   func() error
	}{
		// First that no new pods come, last what is known about them.
		{"CNI configuration", func() error { return cni.Uninstall(cni.InstallOptions{ConfDir: c.cniConfDir, RunDir: c.runDir}) }},
		{"table inet hythe", func() error { return nft.Remove() }},
		{"overlay, routes and links of pods", func() error { return links.Remove(ctx) }},
		{"changes of sysctls", func() error { return c.restoreSysctls(out) }},
		{"addresses of pods", func() error { return cni.Forget(c.dataDir) }},
		{"owned VIPs", func() error { return speaker.Forget(c.dataDir) }},
	} {
		if err := step.do(); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", step.name, err))
			continue
		}
		fmt.Fprintln(out, "removed:", step.name)
	}
	if c.purge && len(errs) == 0 {
		errs = append(errs, c.removeFiles(out))
	}
	return errors.Join(errs...)
}

// removeFiles comes last: an attempt that failed before can be repeated.
func (c *cleanup) removeFiles(out io.Writer) error {
	var errs []error
	if err := cni.UninstallPlugin(c.cniBinDir); err != nil {
		errs = append(errs, err)
	}
	for _, path := range []string{c.dataDir, c.runDir} {
		if err := removeFolder(path); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", path, err))
			continue
		}
		fmt.Fprintln(out, "removed:", path)
	}
	return errors.Join(errs...)
}

// removeFolder leaves a folder empty that is a mount, as in a container whose root may be read-only, and cannot be removed
// there.
func removeFolder(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(path, e.Name())))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EROFS) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// restoreSysctls does not take forwarding away from others, who may have found it on.
func (c *cleanup) restoreSysctls(out io.Writer) error {
	links, err := link.Forwarders()
	lists, err2 := cni.OtherLists(c.cniConfDir)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	others := append(links, lists...)
	if len(others) > 0 {
		fmt.Fprintln(out, "left on: forwarding, for", strings.Join(others, ", "))
	}
	return link.Restore(sysctlsFile(c.dataDir), len(others) > 0)
}

// await is check, repeated for a while.
func (c *cleanup) await(ctx context.Context) error {
	until := time.Now().Add(c.wait)
	for {
		err := c.check()
		if err == nil || !time.Now().Before(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

// check refuses where the agent would put everything back, and where pods are in use.
func (c *cleanup) check() error {
	network, address := "tcp", c.admin
	if path, ok := strings.CutPrefix(c.admin, "unix:"); ok {
		network, address = "unix", path
	}
	if conn, err := net.DialTimeout(network, address, time.Second); err == nil {
		_ = conn.Close()
		return fmt.Errorf("hythe node still runs, it answers at %s: end it first", c.admin)
	}
	// It may answer elsewhere, or nowhere; the table it holds all the same, where the kernel has owners.
	table, err := readback.Table()
	if err != nil {
		return err
	}
	if table.Owned {
		return fmt.Errorf("a process with netlink port %d holds the table inet hythe: end hythe node first", table.Owner)
	}
	pods, err := link.PodLinks()
	if err != nil {
		return err
	}
	if len(pods) > 0 && !c.force {
		return fmt.Errorf("%d pods are attached and would lose their network: drain the node, or use --force", len(pods))
	}
	return nil
}
