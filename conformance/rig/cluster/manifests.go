package cluster

import (
	_ "embed"
	"strings"
)

//go:embed coredns.yaml
var coreDNS string

// DNSManifests are the objects of CoreDNS.
func DNSManifests() string {
	return strings.NewReplacer("IMAGE", CoreDNSImage, "ADDRESS", dnsAddress.String()).Replace(coreDNS)
}
