package check

import (
	"fmt"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/model"
)

// Reasons of the Problems that Beside returns.
const (
	ReasonProxyBeside = "ProxyBeside" // kube-proxy, or what it left, translates Services too
	ReasonNotStrict   = "NotStrict"   // kube-proxy in its mode ipvs lets every node answer ARP for every Service
)

// ipvsDevice is where kube-proxy in its mode ipvs keeps the addresses of Services.
const ipvsDevice = "kube-ipvs0"

// Beside says what kube-proxy does beside Hythe on a node, from the few Facts that ReadBeside reads: an agent looks all the
// time, and a person asks for Build. proxy says that Hythe serves Services here, vips that it announces addresses.
func Beside(f Facts, node string, proxy, vips bool) []model.Problem {
	var problems []model.Problem
	add := func(reason, format string, args ...any) {
		problems = append(problems, model.Problemf(model.ObjectRef{Kind: "Node", Name: node}, reason, format, args...))
	}
	i := slices.IndexFunc(f.Links, func(k Link) bool { return k.Name == ipvsDevice })
	seen := rulesOfKubeProxy(f)
	if i >= 0 {
		seen = append(seen, "the interface "+ipvsDevice)
	}
	if proxy && len(seen) > 0 {
		add(ReasonProxyBeside, "There is %s of kube-proxy, so each Service is translated by whichever is first: remove kube-proxy's DaemonSet and run "+
			"kube-proxy --cleanup on this node, or leave Services to it by hythe node --without-proxy.", shorten(seen))
	}
	// The kernel uses the higher value of "all" and the interface (ip-sysctl, arp_ignore); strictARP sets that of all.
	if i < 0 || !vips || f.Sysctls["net/ipv4/conf/all/arp_ignore"] != "0" {
		return problems
	}
	held := ""
	for _, a := range f.Links[i].Addresses {
		if slices.Contains(f.Cluster.VIPs, a.Addr()) {
			held = fmt.Sprintf(", and for the VIP %s on %s too", a.Addr(), ipvsDevice)
			break
		}
	}
	add(ReasonNotStrict, "kube-proxy runs in its mode ipvs without strictARP: this node answers ARP for addresses of Services that another node announces%s. "+
		"Set ipvs.strictARP: true in kube-proxy's configuration (kubectl -n kube-system edit configmap kube-proxy) and restart it.", held)
	return problems
}

// rulesOfKubeProxy names the chains of kube-proxy in its modes nftables and iptables.
func rulesOfKubeProxy(f Facts) []string {
	var names []string
	for _, c := range f.Chains {
		if strings.HasPrefix(c.Table, "kube-proxy") || strings.HasPrefix(c.Name, "KUBE-SERVICES") || strings.HasPrefix(c.Name, "KUBE-SVC-") {
			names = append(names, "the chain "+c.Family+" "+c.Table+" "+c.Name)
		}
	}
	return names
}
