package main

import (
	"errors"
	"fmt"
	"os"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/host"
)

// down removes everything of the cluster, whatever state it is in.
func (r *rig) down() error {
	err := host.Remove(cluster.Owns, cluster.HostLink)
	if rmErr := os.RemoveAll(r.Dir); rmErr != nil {
		err = errors.Join(err, fmt.Errorf("remove the cluster's folder: %w", rmErr))
	}
	return err
}
