package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"hythe.dev/hythe/internal/lab/kubelet"
	"hythe.dev/hythe/internal/lab/topology"
)

// A Lab is where a lab is: its name and its folder.
type Lab struct {
	// Name is empty for the usual lab; see topology.CheckName.
	Name string
	Dir  string
}

// New returns the lab of this name. An empty dir means the usual place.
func New(name, dir string) (Lab, error) {
	if err := topology.CheckName(name); err != nil {
		return Lab{}, err
	}
	if dir == "" {
		dir = "/var/tmp/hythe-lab"
		if name != "" {
			dir += "-" + name
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Lab{}, fmt.Errorf("find lab folder: %w", err)
	}
	// The longest socket name below must fit into sockaddr_un (unix(7): 108 bytes).
	if len(dir) > 70 {
		return Lab{}, fmt.Errorf("lab folder %s: the path is too long for sockets, want at most 70 characters", dir)
	}
	return Lab{Name: name, Dir: dir}, nil
}

func (l Lab) path(parts ...string) string { return filepath.Join(append([]string{l.Dir}, parts...)...) }

// CA is the path of the certificate that the lab's test certificates are signed with.
func (l Lab) CA() string { return l.path("ca", "ca.crt") }

// State is the state folder that stands beside the manifests.
func (l Lab) State() string { return l.path("state") }

// Logs is the folder of all logs. It outlives the lab.
func (l Lab) Logs() string { return l.path("logs") }

// Manifests is where the demo keeps its copy of a manifests folder.
func (l Lab) Manifests() string { return l.path("manifests") }

// Namespace is the name under /run/netns of a role.
func (l Lab) Namespace(role string) string { return topology.NamespaceName(l.Name, role) }

func (l Lab) socket() string   { return l.path("lab.sock") }
func (l Lab) pidFile() string  { return l.path("lab.pid") }
func (l Lab) lockFile() string { return l.path("lab.lock") }
func (l Lab) pids() string     { return l.path("pids") }
func (l Lab) key() string      { return l.path("heartbeat.key") }

// Admin is the socket on which a process ("node1/gateway") serves its admin pages.
func (l Lab) Admin(process string) string { return l.path("run", process+".sock") }

func (l Lab) node(name string) kubelet.NodeDirs {
	return kubelet.NodeDirs{
		CNIConf:   l.path("nodes", name, "cni", "net.d"),
		CNIBin:    l.path("nodes", name, "cni", "bin"),
		CNICache:  l.path("nodes", name, "cni", "cache"),
		XDSSocket: l.path("nodes", name, "xds", "xds.sock"),
		Run:       l.path("nodes", name, "run"),
	}
}

// makeFolders makes all folders of the lab.
func (l Lab) makeFolders(nodes []topology.Node) error {
	dirs := []string{l.State(), l.Logs(), l.pids(), l.path("run", topology.Control)}
	for _, n := range nodes {
		d := l.node(n.Name)
		dirs = append(dirs, d.CNIConf, d.CNIBin, d.CNICache, filepath.Dir(d.XDSSocket), d.Run, l.path("run", n.Name), l.path("nodes", n.Name, "data"))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make lab folder: %w", err)
		}
	}
	for _, n := range nodes {
		if err := l.newBoot(n.Name); err != nil {
			return err
		}
	}
	return l.writeName()
}

// removeFiles removes what the lab wrote, but for the logs and, with keep, what the next start uses: the Services'
// addresses and the demo's manifests.
func (l Lab) removeFiles(keep bool) error {
	var errs []error
	errs = append(errs, l.unmountMemory())
	for _, name := range []string{"lab.sock", "lab.pid", nameFile, "heartbeat.key", "ca", "pids", "run", "nodes", "api", "memory"} {
		errs = append(errs, os.RemoveAll(l.path(name)))
	}
	entries, err := os.ReadDir(l.State())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if !keep || e.Name() != "services.yaml" {
			errs = append(errs, os.Remove(filepath.Join(l.State(), e.Name())))
		}
	}
	if !keep {
		errs = append(errs, os.RemoveAll(l.State()), os.RemoveAll(l.Manifests()), os.RemoveAll(l.lockFile()))
	}
	return errors.Join(errs...)
}
