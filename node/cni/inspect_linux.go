package cni

import (
	"net/netip"
	"slices"

	"hythe.dev/hythe/node/kernel/link"
)

// An Inspection is a pod's attachment, as it is now.
type Inspection struct {
	Lease Lease
	// Link is the node's end of the pod's link; Exists and Up are its own.
	Link       string
	Exists, Up bool
	// Missing is what the node's end lacks, one change a line.
	Missing []string
}

// Inspect looks for the lease of an address and compares the node's end of its link with what Build wants. found is
// false if no pod has the address. An empty bootIDFile means BootIDFile. It runs in the node's namespace.
func Inspect(dataDir, bootIDFile string, addr netip.Addr) (_ Inspection, found bool, err error) {
	leases, err := ReadLeases(dataDir, bootIDFile)
	if err != nil {
		return Inspection{}, false, err
	}
	for _, lease := range leases.Leases {
		if !slices.Contains(lease.Addresses, addr) {
			continue
		}
		pod := Build(lease.Request, lease, Config{})
		out := Inspection{Lease: lease, Link: pod.HostName}
		out.Exists, out.Up, out.Missing, err = link.CheckPodHost(pod)
		return out, true, err
	}
	return Inspection{}, false, nil
}
