package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
	"hythe.dev/hythe/internal/lab/topology"
)

// find returns the daemons that a name on the command line means: one, or all of a node.
func (r *rig) find(part string) ([]cluster.Daemon, error) {
	if n, ok := r.Node(part); ok {
		return r.NodeDaemons(n), nil
	}
	var known []string
	for _, d := range r.daemons() {
		if d.ID() == part {
			return []cluster.Daemon{d}, nil
		}
		known = append(known, d.ID())
	}
	return nil, fmt.Errorf("no part %q: want one of %s, or a node", part, strings.Join(known, ", "))
}

// kill kills a daemon, which stays dead, or cuts the power of a node.
func (r *rig) kill(part string) error {
	if _, ok := r.Node(part); ok {
		return r.hostNode(part).Halt()
	}
	daemons, err := r.find(part)
	if err != nil {
		return err
	}
	for _, d := range daemons {
		if err := r.daemon(d).Kill(); err != nil {
			return err
		}
	}
	return nil
}

// restart starts a daemon again, after killing it.
func (r *rig) restart(ctx context.Context, part string) error {
	if n, ok := r.Node(part); ok {
		return r.reboot(ctx, n)
	}
	if err := r.kill(part); err != nil {
		return err
	}
	daemons, err := r.find(part)
	if err != nil {
		return err
	}
	for _, d := range daemons {
		if err := r.daemon(d).Start(); err != nil {
			return err
		}
	}
	for i, server := range r.APIServers() {
		if part == []string{cluster.APIServerDaemon, cluster.APIServerDaemon2}[i] {
			return r.waitServer(ctx, server)
		}
	}
	return nil
}

// reboot cuts the power of nodes and boots them, with fresh kernels: other boot ids, empty /run, no interface that anybody
// made. With several nodes the power is cut everywhere first.
func (r *rig) reboot(ctx context.Context, nodes ...cluster.Node) error {
	for _, n := range nodes {
		if err := errors.Join(r.hostNode(n.Name).Halt(), r.unplug(n)); err != nil {
			return err
		}
	}
	api := make(chan struct{})
	close(api)
	for _, n := range nodes {
		if err := plug(r.NodeTopology(n), r.NodeAddresses(n)); err != nil {
			return err
		}
		if err := r.startNode(ctx, n, nil, api); err != nil {
			return err
		}
		r.say("%s has booted", n.Name)
	}
	if err := r.waitBooted(ctx, nodes); err != nil {
		return err
	}
	return r.settle(ctx)
}

// waitBooted waits until Kubernetes knows of the boots: before, it calls the nodes Ready as of old.
func (r *rig) waitBooted(ctx context.Context, nodes []cluster.Node) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return r.wait(ctx, "Kubernetes knows of the boot", func() (string, error) {
		var list nodeList
		if err := r.get(ctx, &list, "nodes"); err != nil {
			return "", err
		}
		known := map[string]string{}
		for _, n := range list.Items {
			known[n.Metadata.Name] = n.Status.NodeInfo.BootID
		}
		var missing []string
		for _, n := range nodes {
			id, err := os.ReadFile(r.Path("nodes", n.Name, "boot_id"))
			if err != nil {
				return "", err
			}
			if known[n.Name] != strings.TrimSpace(string(id)) {
				missing = append(missing, n.Name)
			}
		}
		return strings.Join(missing, ", "), nil
	})
}

// unplug removes a node's network namespace and its cable.
func (r *rig) unplug(n cluster.Node) error {
	plan := r.NodeTopology(n)
	return errors.Join(topology.Unplug(plan.Cables[0].A), topology.Remove([]string{cluster.Namespace(n.Name)}))
}

// addNode adds a node and waits until it is registered.
func (r *rig) addNode(ctx context.Context) error {
	if err := r.bootNew(ctx); err != nil {
		return err
	}
	return r.settle(ctx)
}

// bootNew adds a node.
func (r *rig) bootNew(ctx context.Context) error {
	n, ok := r.NextNode()
	if !ok {
		return fmt.Errorf("the cluster has %d nodes, more have no address", len(r.Nodes))
	}
	images, err := r.images()
	if err != nil {
		return err
	}
	if err := errors.Join(r.unplug(n), r.writeNodeFiles(n)); err != nil {
		return err
	}
	r.Nodes = append(r.Nodes, n)
	if err := plug(r.NodeTopology(n), r.NodeAddresses(n)); err != nil {
		return err
	}
	api := make(chan struct{})
	close(api)
	if err := r.startNode(ctx, n, images, api); err != nil {
		return err
	}
	if err := r.save(); err != nil {
		return err
	}
	r.say("%s has booted", n.Name)
	return nil
}

// readdress gives a node another address, from one moment to the next: its interface, its kubelet's --node-ip.
func (r *rig) readdress(ctx context.Context, name string, address netip.Addr) error {
	n, ok := r.Node(name)
	if !ok {
		return fmt.Errorf("no node %q", name)
	}
	link, old, gateway := cluster.NodeLink(n)
	if err := r.ReaddressNode(name, address); err != nil {
		return err
	}
	n, _ = r.Node(name)
	_, now, _ := cluster.NodeLink(n)
	if err := r.writeNodeFiles(n); err != nil {
		return err
	}
	if err := host.ReplaceAddress(cluster.Namespace(name), link, old, now, gateway); err != nil {
		return err
	}
	if err := r.save(); err != nil {
		return err
	}
	if err := r.restartKubelet(ctx, n); err != nil {
		return err
	}
	r.say("%s has the address %s", name, address)
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := r.wait(wait, "Kubernetes knows the address", func() (string, error) {
		var list nodeList
		if err := r.get(wait, &list, "nodes"); err != nil {
			return "", err
		}
		for _, k := range list.Items {
			if k.Metadata.Name == name && len(k.Status.Addresses) > 0 && k.Status.Addresses[0].Address == address.String() {
				return "", nil
			}
		}
		return name, nil
	})
	if err != nil {
		return err
	}
	return r.settle(ctx)
}

// restartKubelet starts what knows the node's address or object again.
func (r *rig) restartKubelet(ctx context.Context, n cluster.Node) error {
	for _, d := range r.NodeDaemons(n)[1:] {
		if err := r.restart(ctx, d.ID()); err != nil {
			return err
		}
	}
	return nil
}

// renumber gives a node another pod CIDR. A Node keeps the one that it has, so it is deleted, and registers anew.
func (r *rig) renumber(ctx context.Context, name string) error {
	n, ok := r.Node(name)
	if !ok {
		return fmt.Errorf("no node %q", name)
	}
	if r.OwnNetwork() {
		return fmt.Errorf("nodes of flavour %s keep their pod CIDRs: the reference plugins are configured once", r.Flavour)
	}
	old, err := r.kubectl(ctx, "", "get", "node", name, "-o", "jsonpath={.spec.podCIDRs[*]}")
	if err != nil {
		return err
	}
	if _, err := r.kubectl(ctx, "", "delete", "node", name); err != nil {
		return err
	}
	for _, text := range strings.Fields(string(old)) {
		if cidr, err := netip.ParsePrefix(text); err == nil {
			if err := host.RemoveRoute(cluster.Namespace(cluster.Control), cidr); err != nil {
				return err
			}
		}
	}
	if err := r.restartKubelet(ctx, n); err != nil {
		return err
	}
	return r.settle(ctx)
}

// removeNode takes a node away for good: power, cable, Node object.
func (r *rig) removeNode(ctx context.Context, name string) error {
	n, ok := r.Node(name)
	if !ok {
		return fmt.Errorf("no node %q", name)
	}
	if len(r.Nodes) == 1 {
		return fmt.Errorf("%s is the last node", name)
	}
	if err := errors.Join(r.hostNode(name).Halt(), r.unplug(n)); err != nil {
		return err
	}
	if _, err := r.kubectl(ctx, "", "delete", "node", name, "--ignore-not-found"); err != nil {
		return err
	}
	r.Nodes = slices.DeleteFunc(r.Nodes, func(n cluster.Node) bool { return n.Name == name })
	if err := r.save(); err != nil {
		return err
	}
	for _, dir := range []string{"nodes", "pids", "logs"} {
		if err := os.RemoveAll(r.Path(dir, name)); err != nil {
			return fmt.Errorf("remove what %s left: %w", name, err)
		}
	}
	return nil
}

// machines lists what shell and exec can enter.
func (r *rig) machines() []string {
	out := []string{cluster.Client, cluster.Router, cluster.LAN, cluster.Control}
	for _, n := range r.Nodes {
		out = append(out, n.Name)
	}
	return out
}

// become replaces the calling process by a program on a machine of the cluster. On a node it sees what the node sees.
func (r *rig) become(machine string, args []string) error {
	if !slices.Contains(r.machines(), machine) {
		return fmt.Errorf("no machine %q: want one of %s", machine, strings.Join(r.machines(), ", "))
	}
	if _, ok := r.Node(machine); ok {
		return r.hostNode(machine).Become(args)
	}
	return host.BecomeIn(cluster.Namespace(machine), args)
}
