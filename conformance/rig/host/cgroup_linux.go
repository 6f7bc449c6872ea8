package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cgroupRoot is the name of the rig's cgroup in each hierarchy.
const cgroupRoot = "hythe-cluster"

// A hierarchy is a mounted tree of cgroups.
type hierarchy struct {
	path, kind, options string
}

func readHierarchies() ([]hierarchy, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	return parseHierarchies(string(data)), nil
}

// parseHierarchies reads proc_pid_mountinfo(5).
func parseHierarchies(mountinfo string) []hierarchy {
	var out []hierarchy
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || right[0] != "cgroup" && right[0] != "cgroup2" {
			continue
		}
		h := hierarchy{path: left[4], kind: right[0]}
		if h.kind == "cgroup" {
			options := slices.DeleteFunc(strings.Split(right[2], ","), func(o string) bool { return o == "rw" || o == "ro" })
			h.options = strings.Join(options, ",")
		}
		out = append(out, h)
	}
	return out
}

// join moves the calling process into the node's cgroup.
func (h hierarchy) join(node string) error {
	dir := filepath.Join(h.path, cgroupRoot, node)
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
		// A new cpuset is empty, and takes no process before it has processors and memory.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(filepath.Dir(d), f)); err == nil && h.kind == "cgroup" {
				if err := os.WriteFile(filepath.Join(d, f), value, 0o644); err != nil {
					return fmt.Errorf("set %s of cgroup: %w", f, err)
				}
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return fmt.Errorf("join cgroup: %w", err)
	}
	return nil
}

// cgroupMounts shows the node its own cgroups only, at the places where the machine has them.
func cgroupMounts(hierarchies []hierarchy) []mount {
	if len(hierarchies) == 1 && hierarchies[0].path == "/sys/fs/cgroup" {
		return []mount{{source: "cgroup2", target: "/sys/fs/cgroup", kind: "cgroup2"}}
	}
	out := []mount{{source: "tmpfs", target: "/sys/fs/cgroup", kind: "tmpfs", data: "mode=755"}}
	for _, h := range hierarchies {
		out = append(out, mount{source: h.kind, target: h.path, kind: h.kind, data: h.options, make: true})
	}
	return out
}

// removeCgroups removes the node's cgroups, or those of all nodes if node is empty. Processes that were killed a moment
// ago may still be in them.
func removeCgroups(node string) error {
	hierarchies, err := readHierarchies()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, h := range hierarchies {
		dir := filepath.Join(h.path, cgroupRoot, node)
		for {
			err := removeTree(dir)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("remove cgroup: %w", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// removeTree removes a cgroup and those below it. The files in it are the kernel's.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	for _, d := range slices.Backward(dirs) {
		if rmErr := os.Remove(d); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	return err
}
