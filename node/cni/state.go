package cni

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
)

// PluginName is the name of the plugin's binary.
const PluginName = "hythe-cni"

// The error codes of ours; those below 100 are the CNI specification's (section "Error").
const (
	CodeNoAddress    uint = 100 // all addresses of a pod range are in use
	CodeAttach       uint = 101 // the pod's link could not be made
	CodeNotAsAdded   uint = 102 // CHECK found something missing
	codeNotAvailable uint = 50  // STATUS: ADD would fail (specification 1.1.0)
)

// A Request is one attachment: one interface of one container.
type Request struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

// A Lease is the addresses of one attachment, at most one of each family.
type Lease struct {
	Request
	Addresses []netip.Addr `json:"addresses"`
	// Since is when it was given, as time since the machine booted.
	Since Uptime `json:"since"`
	// HostPorts are the ports of the node that lead to this pod.
	HostPorts []HostPort `json:"hostPorts,omitempty"`
	// Pod is NAMESPACE/NAME of who has them, empty if there are none, or the runtime did not say.
	Pod string `json:"pod,omitempty"`
}

// Config is what the agent knows and the plugin needs, in a file that the agent replaces when it changes.
type Config struct {
	// PodCIDRs are the node's pod ranges, at most one of each family.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	// MTU of pod links in bytes.
	MTU int `json:"mtu"`
}

// The least MTUs that the address families work with (RFC 791, RFC 8200 section 5).
const (
	minMTUIPv4 = 68
	minMTUIPv6 = 1280
	maxMTU     = 65535
)

// Validate says what the plugin could not work with.
func (c Config) Validate() error {
	if len(c.PodCIDRs) == 0 {
		return errors.New("podCIDRs is empty")
	}
	least := minMTUIPv4
	seen := map[bool]bool{}
	for _, p := range c.PodCIDRs {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return fmt.Errorf("pod CIDR %s is not valid", p)
		}
		is6 := p.Addr().Is6()
		if seen[is6] {
			return fmt.Errorf("pod CIDR %s is the second of its family", p)
		}
		seen[is6] = true
		if is6 {
			least = minMTUIPv6
		}
	}
	if c.MTU < least || c.MTU > maxMTU {
		return fmt.Errorf("mtu %d is not between %d and %d", c.MTU, least, maxMTU)
	}
	return nil
}

// parseConfig reads what Install wrote.
func parseConfig(data []byte) (Config, error) {
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("parse plugin configuration: %w", err)
	}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("parse plugin configuration: %w", err)
	}
	return c, nil
}

// A netConf is the plugin's entry in the configuration list, as the runtime hands it over on stdin. Every path
// that the plugin uses is in it, so that one machine can hold several nodes.
type netConf struct {
	CNIVersion string `json:"cniVersion,omitempty"`
	Name       string `json:"name,omitempty"`
	Type       string `json:"type"`
	// ConfigFile holds the Config.
	ConfigFile string `json:"configFile"`
	// DataDir keeps the leases, in its folder cni.
	DataDir string `json:"dataDir"`
	// BootIDFile tells one boot of the machine from another.
	BootIDFile string `json:"bootIDFile"`

	// Capabilities are what the runtime may hand over in RuntimeConfig; they stand in the list only.
	Capabilities map[string]bool `json:"capabilities,omitempty"`
	// RuntimeConfig has what is about one pod: see parseHostPorts. It is not read by DEL and GC, which must work whatever
	// it holds.
	RuntimeConfig json.RawMessage `json:"runtimeConfig,omitempty"`
	// ValidAttachments comes with GC only.
	ValidAttachments []types.GCAttachment `json:"cni.dev/valid-attachments,omitempty"`
	// PrevResult comes with CHECK and DEL: what ADD returned.
	PrevResult json.RawMessage `json:"prevResult,omitempty"`
}

func parseNetConf(data []byte) (netConf, error) {
	var c netConf
	if err := json.Unmarshal(data, &c); err != nil {
		return netConf{}, fmt.Errorf("parse network configuration: %w", err)
	}
	for _, path := range []struct{ name, value string }{
		{"configFile", c.ConfigFile}, {"dataDir", c.DataDir}, {"bootIDFile", c.BootIDFile},
	} {
		if !filepath.IsAbs(path.value) {
			return netConf{}, fmt.Errorf("parse network configuration: %s %q is not an absolute path", path.name, path.value)
		}
	}
	return c, nil
}

func (c netConf) store() store {
	return store{dir: filepath.Join(c.DataDir, "cni"), bootIDFile: cmp.Or(c.BootIDFile, BootIDFile)}
}
