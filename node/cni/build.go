package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"

	"hythe.dev/hythe/node/kernel/link"
)

// The next hops of pods: link-local addresses (RFC 3927, RFC 4291) that nobody has. Only their neighbour entry
// counts.
var (
	gateway4 = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	gateway6 = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1})
)

func gateway(a netip.Addr) netip.Addr {
	if a.Is6() {
		return gateway6
	}
	return gateway4
}

// HostName is the name of the node's end of a request's link.
func HostName(r Request) string {
	sum := sha256.Sum256([]byte(r.ContainerID + "/" + r.IfName))
	return link.PodPrefix + hex.EncodeToString(sum[:])[:11]
}

// Build returns what the link of one pod should be.
func Build(r Request, lease Lease, config Config) link.Pod {
	p := link.Pod{
		HostName: HostName(r),
		HostMAC:  endMAC(r, "node"),
		Name:     r.IfName,
		MAC:      endMAC(r, "pod"),
		MTU:      config.MTU,
		Host:     link.State{Protocol: link.ProtocolPod},
		Inside:   link.State{Protocol: link.ProtocolPod},
	}
	p.Host.Sysctls = hostSysctls(p.HostName)
	if slices.ContainsFunc(lease.HostPorts, HostPort.loopback) {
		// What the node sends to 127.0.0.1 may leave by this link, and the answer come in. That nothing else for a loopback
		// address comes in, from here or from the LAN, is the datapath's rule.
		p.Host.Sysctls = append(p.Host.Sysctls, link.Sysctl{Name: "net/ipv4/conf/" + p.HostName + "/route_localnet", Value: "1"})
	}
	p.Inside.Sysctls = []link.Sysctl{{Name: "net/ipv6/conf/" + p.Name + "/accept_ra", Value: "0"}}
	for _, a := range lease.Addresses {
		single := netip.PrefixFrom(a, a.BitLen())
		p.Host.Routes = append(p.Host.Routes, link.Route{Dst: single, Device: p.HostName})
		p.Host.Neighbours = append(p.Host.Neighbours, link.Neighbour{Device: p.HostName, Addr: a, MAC: p.MAC})

		via := gateway(a)
		p.Inside.Addresses = append(p.Inside.Addresses, link.Address{Device: p.Name, Prefix: single})
		p.Inside.Neighbours = append(p.Inside.Neighbours, link.Neighbour{Device: p.Name, Addr: via, MAC: p.HostMAC})
		p.Inside.Routes = append(p.Inside.Routes, link.Route{Dst: everything(a), Device: p.Name, Via: via})
	}
	return p
}

func endMAC(r Request, end string) link.MAC {
	sum := sha256.Sum256([]byte(r.ContainerID + "/" + r.IfName + "/" + end))
	return link.LocalMAC(sum[:])
}

// everything is the default route's destination, in the family of a.
func everything(a netip.Addr) netip.Prefix {
	if a.Is6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// hostSysctls make the node's end distrust the pod: no source but its own (RFC 3704), no ARP answers about the
// node's addresses, no redirects, no router advertisements (CVE-2020-10749).
func hostSysctls(name string) []link.Sysctl {
	v4, v6 := "net/ipv4/conf/"+name+"/", "net/ipv6/conf/"+name+"/"
	return []link.Sysctl{
		{Name: v4 + "rp_filter", Value: "1"},
		{Name: v4 + "arp_ignore", Value: "8"},
		{Name: v4 + "send_redirects", Value: "0"},
		{Name: v4 + "accept_redirects", Value: "0"},
		{Name: v6 + "accept_ra", Value: "0"},
		{Name: v6 + "accept_redirects", Value: "0"},
	}
}
