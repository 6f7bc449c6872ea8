package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
	"hythe.dev/hythe/internal/lab/topology"
)

// status prints what runs, with the memory that it takes, and what Kubernetes says of nodes and of Hythe.
func (r *rig) status(ctx context.Context) error {
	fmt.Fprintf(r.out, "flavour %s, kubeconfig %s\n", r.Flavour, r.Kubeconfig())
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	for _, d := range r.ControlPlane() {
		fmt.Fprintln(w, r.daemonLine(d))
	}
	for _, n := range r.Nodes {
		state := "off"
		if _, ok := r.hostNode(n.Name).InitPID(); ok {
			all := host.Memory(r.hostNode(n.Name).Processes())
			state = fmt.Sprintf("%d MiB with its pods", all>>20)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", n.Name, n.Address, state)
		for _, d := range r.NodeDaemons(n) {
			fmt.Fprintln(w, r.daemonLine(d))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	out, err := r.kubectl(ctx, "", "get", "nodes,pods", "--all-namespaces", "-o", "wide", "--request-timeout=5s")
	fmt.Fprintf(r.out, "\n%s", out)
	return err
}

func (r *rig) daemonLine(d cluster.Daemon) string {
	pid, ok := r.daemon(d).PID()
	if !ok {
		return fmt.Sprintf("%s\tdead\tsee %s", d.ID(), r.daemon(d).Log)
	}
	return fmt.Sprintf("%s\tpid %d\t%d MiB", d.ID(), pid, host.Memory([]int{pid})>>20)
}

// hint says in an error what a person would look at next.
func (r *rig) hint(err error) error {
	var dead []string
	for _, d := range r.daemons() {
		if _, ok := r.daemon(d).PID(); !ok && len(topology.Processes([]string{cluster.Namespace(cluster.Control)})) > 0 {
			dead = append(dead, d.ID())
		}
	}
	if len(dead) == 0 {
		return fmt.Errorf("%w (logs: %s)", err, r.Path("logs"))
	}
	return fmt.Errorf("%w (dead: %s; logs: %s)", err, strings.Join(dead, ", "), r.Path("logs"))
}
