package host

import (
	"errors"
	"fmt"
	"os"

	"hythe.dev/hythe/internal/lab/topology"
)

// Remove ends all processes of the rig's machines and removes the machines: namespaces, cables, cgroups, and with the
// namespaces all mounts. It needs nothing but the names of network namespaces, and may be repeated.
func Remove(owns func(namespace string) bool, hostLink string) error {
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if owns(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return errors.Join(
		topology.Unplug(topology.End{Interface: hostLink}),
		topology.Remove(names),
		removeCgroups(""),
	)
}
