package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
)

// down removes everything of the cluster, whatever state it is in. It touches nothing if --dir holds what is not the rig's.
func (r *rig) down() error {
	if err := ownFolder(r.Dir); err != nil {
		return err
	}
	err := host.Remove(cluster.Owns, cluster.HostLink)
	if rmErr := os.RemoveAll(r.Dir); rmErr != nil {
		err = errors.Join(err, fmt.Errorf("remove the cluster's folder: %w", rmErr))
	}
	return err
}

// ownFolder says whether a folder may be removed: nothing is in it but what a cluster puts there.
func ownFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into the cluster's folder: %w", err)
	}
	known := []string{stateFile, "kubeconfig", "pki", "config", "logs", "pids", "nodes", "etcd", "rig"}
	for _, e := range entries {
		// The state is written by rename: a crash may leave the new file under its first name.
		if !slices.Contains(known, e.Name()) && !strings.HasPrefix(e.Name(), "."+stateFile) {
			return fmt.Errorf("%s is not the rig's: folder %s is not removed, name another one by --dir or CLUSTER_DIR", e.Name(), dir)
		}
	}
	return nil
}
