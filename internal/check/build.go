package check

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/node/kernel/link"
)

// Build judges facts. There is at least one Finding for each thing that was looked at. They are in the order of the
// checks, the worst of each first.
func Build(f Facts) []Finding {
	var out []Finding
	for _, part := range []func(Facts) []Finding{
		kernel, sysctls, mtu, peers, addresses, otherCNI, otherProxies, otherBalancers, neighbours, firewall, clock, conntrack, limits, disks,
	} {
		findings := part(f)
		slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(rank(a), rank(b)) })
		out = append(out, findings...)
	}
	for _, what := range f.Unread {
		out = append(out, Finding{"unread", Warning, what, "run hythe check as root, or ask the agent: hythe check --admin HOST:PORT"})
	}
	return out
}

func rank(f Finding) int { return slices.Index([]Severity{Error, Warning, OK}, f.Severity) }

// Worst is the highest severity of findings.
func Worst(findings []Finding) Severity {
	worst := OK
	for _, f := range findings {
		if f.Severity == Error || worst == OK {
			worst = f.Severity
		}
	}
	return worst
}

// A list collects the findings of one check.
type list struct {
	check    string
	findings []Finding
}

func (l *list) add(severity Severity, remedy, format string, args ...any) {
	l.findings = append(l.findings, Finding{l.check, severity, fmt.Sprintf(format, args...), remedy})
}

// orOK adds a Finding that all is well, if there is nothing else.
func (l *list) orOK(format string, args ...any) []Finding {
	if len(l.findings) == 0 {
		l.add(OK, "", format, args...)
	}
	return l.findings
}

func kernel(f Facts) []Finding {
	l := list{check: "kernel"}
	if !f.Root {
		l.add(Warning, "run hythe check as root", "what the kernel can do was not tried: this needs root")
		return l.findings
	}
	if len(f.Features) == 0 {
		return l.orOK("Linux %s; what it can do was not tried, since an agent in a pod may make no network namespace", f.Release)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Features)) {
		why := f.Features[name]
		switch {
		case why == "":
		case name == FeatureOwner:
			l.add(Warning, "a kernel of 6.9 or later protects the table; until then changes by others are repaired when they are seen",
				"others may change the table inet hythe: %s", why)
		case name == FeatureTUN:
			l.add(Warning, "load the module tun, if an encrypted overlay is wanted", "there are no TUN devices: %s", why)
		case name == FeatureHash:
			l.add(Warning, "load the module nft_hash, if Services have the annotation "+v1alpha1.EndpointChoiceAnnotation+" (modprobe nft_hash)",
				"endpoints cannot be chosen by a hash: %s", why)
		case name == FeatureDatapath:
			l.add(Error, "use a kernel of 5.10 or later with nf_tables, nft_fib, nft_numgen, nft_nat and nft_masq (modprobe nf_tables)",
				"the Service datapath cannot be written: %s", why)
		default:
			l.add(Error, "load the module: modprobe "+strings.Fields(strings.ReplaceAll(name, "conntrack", "nf_conntrack_netlink"))[0],
				"the kernel has no %s: %s", name, why)
		}
	}
	return l.orOK("Linux %s has all that is needed: %s", f.Release, strings.Join(slices.Sorted(maps.Keys(f.Features)), ", "))
}

// underlay is the link with the node's address, nil if it is not known.
func (f Facts) underlay() *Link {
	for i, l := range f.Links {
		for _, a := range l.Addresses {
			if slices.Contains(f.Cluster.Addresses, a.Addr()) {
				return &f.Links[i]
			}
		}
	}
	return nil
}

func sysctls(f Facts) []Finding {
	l := list{check: "sysctl"}
	want := func(name, value string, severity Severity, why string) {
		if got, ok := f.Sysctls[name]; ok && got != value {
			l.add(severity, "sysctl -w "+name+"="+value+", and see what else sets it: grep -rs "+name[strings.LastIndexByte(name, '/')+1:]+" /etc/sysctl* /run/sysctl.d /usr/lib/sysctl.d",
				"%s is %s: %s", name, got, why)
		}
	}
	severity, why := Error, "packets of pods are not forwarded"
	if !f.Cluster.Known {
		severity, why = Warning, why+"; hythe node sets it when it starts"
	}
	want("net/ipv4/ip_forward", "1", severity, why)
	if underlay := f.underlay(); underlay != nil && f.Sysctls["net/ipv4/ip_forward"] == "1" {
		want("net/ipv4/conf/"+underlay.Name+"/forwarding", "1", Error, "what comes in by this interface is not forwarded")
	}
	reversePath(f, &l)
	for _, name := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables", "net/bridge/bridge-nf-call-arptables"} {
		if f.Sysctls[name] == "1" && slices.ContainsFunc(f.Links, func(k Link) bool { return k.Type == "bridge" }) {
			l.add(Warning, "sysctl -w "+name+"=0, unless another network needs it",
				"%s is 1 and there is a bridge: frames that it carries pass the rules for IP packets, and may be translated twice", name)
		}
	}
	return l.orOK("forwarding is on, and no source check is in the way")
}

// reversePath looks for interfaces that drop packets whose answer would leave elsewhere (RFC 3704). The kernel takes the
// higher value of "all" and the interface, so one that udev or systemd sets for all counts everywhere.
func reversePath(f Facts, l *list) {
	all := f.Sysctls["net/ipv4/conf/all/rp_filter"]
	for _, k := range f.Links {
		own := f.Sysctls["net/ipv4/conf/"+k.Name+"/rp_filter"]
		overlay := k.Name == link.OverlayName
		underlay := f.underlay() != nil && f.underlay().Name == k.Name
		if max(all, own) != "1" || !overlay && !underlay {
			continue
		}
		by := k.Name
		if own != "1" {
			by = "all"
		}
		severity, why := Warning, "answers to clients that come in by one interface and are routed by another are dropped"
		if overlay {
			severity, why = Error, "packets from nodes and from outside that come over the overlay are dropped"
		}
		l.add(severity, "sysctl -w net/ipv4/conf/"+by+"/rp_filter=2; systemd sets it in /usr/lib/sysctl.d/50-default.conf, override it in /etc/sysctl.d",
			"net/ipv4/conf/%s/rp_filter is 1, so the source check of %s is strict: %s", by, k.Name, why)
	}
}

// vxlanOverhead is what VXLAN adds to a packet over IPv4 (RFC 7348): Ethernet, VXLAN, UDP and IP headers, in bytes.
const vxlanOverhead = 50

func mtu(f Facts) []Finding {
	l := list{check: "mtu"}
	underlay := f.underlay()
	if underlay == nil {
		if f.Cluster.Known {
			l.add(Error, "give the Node the address of an interface: kubelet --node-ip", "no interface has an address of Node %s", f.Cluster.Node)
		}
		return l.orOK("not compared: which interface is the underlay is known to the agent (hythe check --admin HOST:PORT)")
	}
	if !underlay.Up {
		l.add(Error, "ip link set "+underlay.Name+" up", "the underlay %s is down", underlay.Name)
	}
	pods := f.Cluster.PodMTU
	for _, k := range f.Links {
		if k.Name != link.OverlayName {
			continue
		}
		if k.MTU+vxlanOverhead > underlay.MTU {
			l.add(Error, fmt.Sprintf("give hythe node --mtu %d, or raise the MTU of %s", underlay.MTU-vxlanOverhead, underlay.Name),
				"%s has MTU %d, which needs %d of %s, and that has %d: long packets between nodes are lost", k.Name, k.MTU, k.MTU+vxlanOverhead, underlay.Name, underlay.MTU)
		}
		if pods > k.MTU {
			l.add(Error, "restart hythe node, and then the pods", "pods get MTU %d, more than the %d of %s", pods, k.MTU, k.Name)
		}
	}
	if underlay.MTU < 1280 {
		l.add(Warning, "raise the MTU of "+underlay.Name, "%s has MTU %d: IPv6 needs 1280 (RFC 8200)", underlay.Name, underlay.MTU)
	}
	if pods == 0 {
		return l.orOK("%s has MTU %d, which leaves pods %d over VXLAN", underlay.Name, underlay.MTU, underlay.MTU-vxlanOverhead)
	}
	return l.orOK("%s has MTU %d, pods %d", underlay.Name, underlay.MTU, pods)
}

// peers judges what came back from other nodes.
func peers(f Facts) []Finding {
	l := list{check: "peers"}
	reached, unheard := 0, 0
	failed := map[string]bool{}      // underlay addresses at which nobody answers any size
	nothing := map[netip.Addr]bool{} // ends of the overlay to which no size comes
	for _, p := range f.Probes {
		if p.Over == "underlay" && p.Error != "" && p.Size < 1280 {
			failed[p.Node] = true
		}
		if p.Over == "overlay" && p.Error != "" && p.Size < 1280 {
			nothing[p.To] = true
		}
	}
	for _, p := range f.Probes {
		name := strings.TrimSpace(p.Node + " " + p.To.String())
		switch {
		case p.Error == "":
			reached++
		case p.Over == "underlay" && p.Size < 1280:
			l.add(Error, "see whether it runs, and whether a firewall stops ICMP between nodes", "no answer to ping from %s: %s", name, p.Error)
		case failed[p.Node], p.Size >= 1280 && nothing[p.To]: // said already
		case p.Over == "underlay":
			l.add(Error, "set one MTU on all machines and switches of the LAN, or give hythe node a smaller --mtu",
				"a packet of %d bytes does not get to %s and back, shorter ones do: %s", p.Size, name, p.Error)
		case p.Size < 1280:
			l.add(Error, "let UDP port 4789 pass between nodes in both directions; see hythe get problems for the other node's overlay",
				"the overlay to %s carries nothing, while the machine itself answers: %s", name, p.Error)
		default:
			l.add(Error, "give hythe node a smaller --mtu on all nodes, or raise the MTU of the network between them",
				"the overlay to %s loses packets of %d bytes, and carries short ones: %s", name, p.Size, p.Error)
		}
	}
	for _, p := range f.Cluster.Peers {
		if f.Cluster.Heartbeats && !p.Heard {
			unheard++
			l.add(Warning, "see that hythe node runs there with the same --heartbeat-key, and that UDP port 7472 passes between nodes in both directions",
				"no heartbeats come from %s (%s)", p.Node, p.Address)
		}
	}
	if len(f.Probes) == 0 && len(l.findings) == 0 {
		return l.orOK("no other node was asked: name some by --peers ADDRESS")
	}
	heartbeats := ""
	if f.Cluster.Heartbeats {
		heartbeats = fmt.Sprintf(", heartbeats come from %d nodes", len(f.Cluster.Peers)-unheard)
	}
	return l.orOK("%d probes came back%s", reached, heartbeats)
}

// addresses looks for ranges that overlap.
func addresses(f Facts) []Finding {
	l := list{check: "addresses"}
	c := f.Cluster
	pods := slices.Clone(c.PodCIDRs)
	for _, p := range c.Peers {
		pods = append(pods, p.PodCIDRs...)
	}
	for _, pod := range pods {
		lanOverlap(f, &l, "pod CIDR", pod, "give the cluster another range (kube-controller-manager --cluster-cidr), or the LAN")
		for _, s := range c.Services {
			if s.Overlaps(pod) {
				l.add(Error, "give Services another range (kube-apiserver --service-cluster-ip-range)", "the Service address %s is in the pod CIDR %s", s, pod)
			}
		}
		for _, p := range c.Pools {
			if p.overlaps(pod) {
				l.add(Error, "change the AddressPool, pods have these addresses", "AddressPool %s (%s-%s) overlaps the pod CIDR %s", p.Name, p.First, p.Last, pod)
			}
		}
	}
	for _, s := range c.Services {
		lanOverlap(f, &l, "Service range", s, "give Services another range (kube-apiserver --service-cluster-ip-range)")
		for _, p := range c.Pools {
			if p.overlaps(s) {
				l.add(Error, "change the AddressPool", "AddressPool %s (%s-%s) overlaps the Service range %s", p.Name, p.First, p.Last, s)
			}
		}
	}
	for _, p := range c.Pools {
		poolAddresses(f, &l, p)
	}
	if len(pods)+len(c.Services)+len(c.Pools) == 0 {
		return l.orOK("not compared: name ranges by --pod-cidr, --service-cidr and --pool, or ask the agent")
	}
	return l.orOK("pod CIDRs, Services, pools and LAN do not overlap")
}

// lanOverlap finds interfaces of others, and routes of others, that overlap a range of the cluster.
func lanOverlap(f Facts, l *list, what string, r netip.Prefix, remedy string) {
	said := map[string]bool{}
	for _, k := range f.Links {
		if strings.HasPrefix(k.Name, link.PodPrefix) || k.Name == link.OverlayName {
			continue
		}
		for _, a := range k.Addresses {
			if a.Masked().Overlaps(r) && !said[k.Name] {
				said[k.Name] = true
				l.add(Error, remedy, "the %s %s overlaps the network %s of %s: hosts there cannot be told from pods and Services", what, r, a.Masked(), k.Name)
			}
		}
	}
	for _, route := range f.Routes {
		if !route.Own && route.Dst.Bits() > 0 && route.Dst.Overlaps(r) && !said[route.Device] && !strings.HasPrefix(route.Device, link.PodPrefix) {
			said[route.Device] = true
			l.add(Error, "remove the route, or "+remedy, "the %s %s overlaps the route to %s by %s", what, r, route.Dst, route.Device)
		}
	}
}

// poolAddresses finds addresses of a pool that this machine or another node has.
func poolAddresses(f Facts, l *list, p Pool) {
	for _, k := range f.Links {
		for _, a := range k.Addresses {
			if p.contains(a.Addr()) && !slices.Contains(f.Cluster.VIPs, a.Addr()) { // a VIP on an interface is said by otherBalancers
				l.add(Error, "take it out of the pool, or off the interface", "AddressPool %s has %s, which is an address of %s on this machine", p.Name, a.Addr(), k.Name)
			}
		}
	}
	for _, peer := range f.Cluster.Peers {
		if p.contains(peer.Address) {
			l.add(Error, "take it out of the pool", "AddressPool %s has %s, the address of Node %s", p.Name, peer.Address, peer.Node)
		}
	}
}

func (p Pool) contains(a netip.Addr) bool {
	return a.Is4() == p.First.Is4() && p.First.Compare(a) <= 0 && a.Compare(p.Last) <= 0
}

func (p Pool) overlaps(r netip.Prefix) bool {
	return p.contains(r.Masked().Addr()) || r.Contains(p.First)
}
