package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
	"hythe.dev/hythe/internal/atomicfile"
)

// A rig is one cluster and the terminal it tells of its progress.
type rig struct {
	cluster.Cluster
	// source is the product's folder: images, chart, values.
	source string
	helm   string // the program that installs it
	out    io.Writer
	begun  time.Time
}

const stateFile = "cluster.json"

// binaries is the folder that scripts/kubernetes.sh fills.
func binaries() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the programs of Kubernetes: %w", err)
	}
	return filepath.Join(cache, "hythe", "bin"), nil
}

// load reads the state of the cluster in dir; ok is false when there is none.
func load(dir string) (c cluster.Cluster, ok bool, err error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, false, fmt.Errorf("read the cluster's state: %w", err)
	}
	return c, true, nil
}

func (r *rig) save() error {
	data, err := json.MarshalIndent(r.Cluster, "", "  ")
	if err == nil {
		err = atomicfile.Write(r.Path(stateFile), append(data, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the cluster's state: %w", err)
	}
	return nil
}

// lock lets one rig at a time change a cluster. The name is the kernel's only and ends with the process.
func lock() (unlock func(), err error) {
	l, err := net.Listen("unix", "@hythe-cluster")
	if err != nil {
		return nil, fmt.Errorf("another rig is changing the cluster: wait for it: %w", err)
	}
	return func() { l.Close() }, nil
}

// say prints a line of progress.
func (r *rig) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%6.1fs  %s\n", time.Since(r.begun).Seconds(), fmt.Sprintf(format, args...))
}

// hostNode is a node as package host sees it.
func (r *rig) hostNode(name string) *host.Node {
	return &host.Node{
		Name: name, Namespace: cluster.Namespace(name),
		Dir: r.Path("nodes", name), Program: r.Path("rig"), Log: r.Path("logs", name, "init.log"),
	}
}

func (r *rig) daemon(d cluster.Daemon) host.Daemon {
	out := host.Daemon{Args: d.Args, Log: r.Path("logs", d.ID()+".log"), PIDFile: r.Path("pids", d.ID())}
	if d.Machine == cluster.Control {
		out.Namespace = cluster.Namespace(cluster.Control)
	} else {
		out.Node = r.hostNode(d.Machine)
	}
	return out
}

// daemons lists all of the cluster.
func (r *rig) daemons() []cluster.Daemon {
	out := r.ControlPlane()
	for _, n := range r.Nodes {
		out = append(out, r.NodeDaemons(n)...)
	}
	return out
}
