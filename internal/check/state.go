package check

import (
	"net/netip"
	"time"
)

// A Severity says how bad a Finding is.
type Severity string

const (
	// OK is as it should be.
	OK Severity = "ok"
	// Warning works now, or for most, and may not always.
	Warning Severity = "warning"
	// Error keeps something from working.
	Error Severity = "error"
)

// A Finding is the result of one check.
type Finding struct {
	// Check names what was looked at: "kernel", "sysctl", "mtu", "peers", "addresses", "cni", "proxy", "balancer", "neighbours",
	// "clock", "conntrack", "limits", "disk".
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	// Seen is what was found, in a sentence.
	Seen string `json:"seen"`
	// Remedy is what a person should do, empty where all is well.
	Remedy string `json:"remedy,omitempty"`
}

// Facts are all that Build looks at. What could not be read is in Unread, and absent otherwise.
type Facts struct {
	Root bool `json:"root"`
	// Unread says what could not be read, and why.
	Unread []string `json:"unread,omitempty"`

	Release string `json:"release,omitempty"`
	// Features are what the kernel can do, by name: empty if it works, else why not. None where it could not be tried.
	Features map[string]string `json:"features,omitempty"`
	// Sysctls are values below /proc/sys by path, "net/ipv4/ip_forward".
	Sysctls map[string]string `json:"sysctls,omitempty"`
	Links   []Link            `json:"links,omitempty"`
	Routes  []Route           `json:"routes,omitempty"`
	// Neighbours are the entries of the ARP and NDP tables that have a MAC.
	Neighbours []Neighbour `json:"neighbours,omitempty"`
	// Chains are the chains of nftables, also those of iptables-nft, but for Hythe's own.
	Chains []Chain `json:"chains,omitempty"`
	// LegacyTables are those of the old iptables.
	LegacyTables []string `json:"legacyTables,omitempty"`
	// IPVS says that the kernel has virtual servers of IPVS.
	IPVS bool `json:"ipvs,omitempty"`
	// CNIFiles are those of the runtime's configuration folder, in the order in which it reads them; CNIDir is the folder,
	// empty if no plugin is installed.
	CNIDir   string    `json:"cniDir,omitempty"`
	CNIFiles []CNIFile `json:"cniFiles,omitempty"`
	// Processes are the names of running processes that do Hythe's work too.
	Processes []string `json:"processes,omitempty"`

	ClockUnsynchronised bool   `json:"clockUnsynchronised,omitempty"`
	ConntrackCount      int    `json:"conntrackCount,omitempty"`
	ConntrackMax        int    `json:"conntrackMax,omitempty"`
	InotifyError        string `json:"inotifyError,omitempty"`
	FilesOpen           int    `json:"filesOpen,omitempty"`
	FilesMax            int    `json:"filesMax,omitempty"`
	Disks               []Disk `json:"disks,omitempty"`

	Cluster Cluster `json:"cluster,omitzero"`
	Probes  []Probe `json:"probes,omitempty"`
}

// The names of Facts.Features.
const (
	FeatureDatapath  = "nftables"
	FeatureOwner     = "nftables owner flag"
	FeatureHash      = "nftables hash"
	FeatureVXLAN     = "vxlan"
	FeatureVeth      = "veth"
	FeatureTUN       = "tun"
	FeatureConntrack = "conntrack netlink"
)

// A Link is a network device.
type Link struct {
	Name      string         `json:"name"`
	Type      string         `json:"type"`
	MTU       int            `json:"mtu"`
	Up        bool           `json:"up"`
	MAC       string         `json:"mac,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// VNI and Port are those of a VXLAN.
	VNI  int `json:"vni,omitempty"`
	Port int `json:"port,omitempty"`
}

// A Route is one of the main table.
type Route struct {
	Dst    netip.Prefix `json:"dst"`
	Device string       `json:"device"`
	// Own says that Hythe made it.
	Own bool `json:"own,omitempty"`
}

// A Neighbour is a host of the LAN.
type Neighbour struct {
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac"`
	Device  string     `json:"device"`
}

// A Chain is a chain of nftables.
type Chain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	// Hook is empty for one that others jump to. Drop says that what no rule accepts is dropped.
	Hook string `json:"hook,omitempty"`
	Drop bool   `json:"drop,omitempty"`
}

// A CNIFile is a file of the runtime's configuration folder.
type CNIFile struct {
	Name string `json:"name"`
	// Plugins are the types of the plugins that it names.
	Plugins []string `json:"plugins,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// A Disk is the file system below a folder that Hythe writes to.
type Disk struct {
	Path       string `json:"path"`
	FreeBytes  uint64 `json:"freeBytes"`
	TotalBytes uint64 `json:"totalBytes"`
	FreeNodes  uint64 `json:"freeNodes"`
	TotalNodes uint64 `json:"totalNodes"`
	ReadOnly   bool   `json:"readOnly,omitempty"`
}

// Cluster is what is known of the cluster: by an agent from its Snapshot, else by what a person said.
type Cluster struct {
	// Known says that it comes from an agent.
	Known bool   `json:"known,omitempty"`
	Node  string `json:"node,omitempty"`
	// Addresses are this node's, PodCIDRs its own ranges.
	Addresses []netip.Addr   `json:"addresses,omitempty"`
	PodCIDRs  []netip.Prefix `json:"podCIDRs,omitempty"`
	// PodMTU is that of new pods in bytes, 0 if it is not known. VNI and Port are the overlay's.
	PodMTU int    `json:"podMTU,omitempty"`
	Peers  []Peer `json:"peers,omitempty"`
	// Services are ranges of ClusterIPs, or single ones.
	Services []netip.Prefix `json:"services,omitempty"`
	Pools    []Pool         `json:"pools,omitempty"`
	VIPs     []netip.Addr   `json:"vips,omitempty"`
	// Heartbeats says that this node sends heartbeats: without, nobody is heard.
	Heartbeats bool `json:"heartbeats,omitempty"`
	// Overlay says that this node runs Hythe's overlay, Proxy that it runs its Service datapath.
	Overlay bool `json:"overlay,omitempty"`
	Proxy   bool `json:"proxy,omitempty"`
}

// A Peer is another node.
type Peer struct {
	Node     string         `json:"node"`
	Address  netip.Addr     `json:"address"`
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
	// Heard says that heartbeats of it come.
	Heard bool `json:"heard,omitempty"`
}

// A Pool is a range of VIPs.
type Pool struct {
	Name  string     `json:"name"`
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// A Probe is a packet of a size that was sent to a peer and had to come back.
type Probe struct {
	Node string `json:"node,omitempty"`
	// Over is "underlay", the machines' own network, or "overlay": the packet goes to the peer's end of the VXLAN.
	Over string     `json:"over"`
	To   netip.Addr `json:"to"`
	// Size is that of the IP packet in bytes, with the flag that forbids fragments (RFC 791, DF).
	Size int `json:"size"`
	// Error is empty if the answer came, within After.
	Error string        `json:"error,omitempty"`
	After time.Duration `json:"after,omitempty"`
}
