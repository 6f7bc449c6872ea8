package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/kube/forward"
	"hythe.dev/hythe/internal/lab"
)

// A finder knows where the running processes serve their admin pages.
type finder struct {
	admin []string
	lab   labFlags
	// chosen says that --lab was given, also as the usual lab, which has no name.
	chosen func() bool
	// kubeconfig, context and namespace name a cluster, inCluster says that one of them was given.
	kubeconfig, context, namespace string
	inCluster                      func() bool
	stderr                         io.Writer
	// getenv, local and kubectl, which says whether kubectl would find a cluster, are replaced by tests.
	getenv  func(string) string
	local   []string
	kubectl func() bool
}

// localAdmins are the defaults of --admin.
func localAdmins() []string {
	return []string{controllerAdmin, gatewayAdmin, nodeAdmin}
}

// The defaults of --admin, on the loopback interface of the machine that a process runs on.
const (
	controllerAdmin = "127.0.0.1:9901"
	gatewayAdmin    = "127.0.0.1:9902"
	nodeAdmin       = "127.0.0.1:9903"
)

// addFindFlags gives cmd the flags that say which processes are asked.
func addFindFlags(cmd *cobra.Command) *finder {
	f := &finder{getenv: os.Getenv, local: localAdmins(), kubectl: forward.DefaultConfig}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.admin, "admin", nil, "admin address of a process, HOST:PORT or unix:PATH; may be repeated (also HYTHE_ADMIN, with commas)")
	flags.StringVar(&f.lab.name, "lab", "", "ask the processes of the lab of this name (also HYTHE_LAB)")
	flags.StringVar(&f.lab.dir, "lab-dir", "", "ask the processes of the lab in this folder")
	_ = cmd.MarkFlagDirname("lab-dir")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "ask the processes of the cluster of this kubeconfig (default: as kubectl, where no lab runs)")
	flags.StringVar(&f.context, "context", "", "context of the kubeconfig")
	flags.StringVar(&f.namespace, "hythe-namespace", "hythe-system", "namespace that Hythe was installed into")
	f.inCluster = func() bool {
		return flags.Changed("kubeconfig") || flags.Changed("context") || flags.Changed("hythe-namespace")
	}
	for _, one := range []string{"kubeconfig", "context", "hythe-namespace"} {
		for _, other := range []string{"admin", "lab", "lab-dir"} {
			cmd.MarkFlagsMutuallyExclusive(one, other)
		}
	}
	f.stderr = cmd.ErrOrStderr()
	f.chosen = func() bool { return flags.Changed("lab") || flags.Changed("lab-dir") }
	return f
}

// open finds out who is there. Who does not answer is in Silent; it is an error only if nobody answers.
func (f *finder) open(ctx context.Context) (*inspect.Cluster, error) {
	if f.asksCluster() {
		return f.openCluster(ctx)
	}
	addresses, guessed, err := f.addresses()
	if err != nil {
		return nil, err
	}
	cluster, err := inspect.Open(ctx, addresses)
	switch {
	case err != nil && guessed:
		return nil, fmt.Errorf("no process of Hythe runs on this machine (asked %s): name one by --admin HOST:PORT, a cluster by --kubeconfig FILE, or a lab by --lab NAME",
			strings.Join(addresses, ", "))
	case err != nil:
		return nil, fmt.Errorf("%w\ncheck --admin, --lab and HYTHE_ADMIN; hythe lab status shows what a lab runs", err)
	case guessed: // a machine need not run each of them
		cluster.Silent = slices.DeleteFunc(cluster.Silent, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) })
	}
	return cluster, nil
}

// addresses are where to ask. They are guessed if nobody named them.
func (f *finder) addresses() (addresses []string, guessed bool, err error) {
	addresses = slices.Clone(f.admin)
	if f.chosen() {
		more, err := f.labAddresses(f.lab.name, f.lab.dir)
		return append(addresses, more...), false, err
	}
	if len(addresses) > 0 {
		return addresses, false, nil
	}
	for address := range strings.SplitSeq(f.getenv("HYTHE_ADMIN"), ",") {
		if address = strings.TrimSpace(address); address != "" {
			addresses = append(addresses, address)
		}
	}
	if len(addresses) > 0 {
		return addresses, false, nil
	}
	if name := f.getenv("HYTHE_LAB"); name != "" {
		addresses, err = f.labAddresses(name, "")
		return addresses, false, err
	}
	if usual, err := f.labAddresses("", ""); err == nil && slices.ContainsFunc(usual, listens) {
		return usual, false, nil
	}
	return f.local, true, nil
}

// labAddresses are those of the processes of a lab, running or not.
func (f *finder) labAddresses(name, dir string) ([]string, error) {
	l, err := lab.New(name, dir)
	if err != nil {
		return nil, err
	}
	sockets, err := filepath.Glob(l.Admin("*/*"))
	if err != nil {
		return nil, fmt.Errorf("find processes of the lab: %w", err)
	}
	if len(sockets) == 0 {
		return nil, fmt.Errorf("there is no lab in %s: start it by hythe lab up, or name another by --lab or --lab-dir", l.Dir)
	}
	for i := range sockets {
		sockets[i] = "unix:" + sockets[i]
	}
	return sockets, nil
}

// listens says whether somebody is at a unix socket: a lab that was killed leaves its sockets.
func listens(address string) bool {
	conn, err := net.DialTimeout("unix", strings.TrimPrefix(address, "unix:"), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// warnSilent names the processes that did not answer: the rest is shown without them.
func warnSilent(w io.Writer, c *inspect.Cluster) {
	for _, err := range c.Silent {
		fmt.Fprintf(w, "Warning: %v\n", err)
	}
}
