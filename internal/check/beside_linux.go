package check

import (
	"fmt"
	"net/netip"
)

// ReadBeside reads what Beside looks at, in the calling thread's network namespace. vips are the claimed addresses.
func ReadBeside(vips []netip.Addr) (Facts, error) {
	f := Facts{Cluster: Cluster{VIPs: vips}, Sysctls: map[string]string{}}
	if err := f.readChains(); err != nil {
		return f, fmt.Errorf("read nftables: %w", err)
	}
	if err := f.readLinks(); err != nil {
		return f, fmt.Errorf("read links: %w", err)
	}
	f.readSysctls()
	return f, nil
}
