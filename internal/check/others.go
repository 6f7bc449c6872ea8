package check

import (
	"fmt"
	"slices"
	"strings"
)

// ownConflist is the file that Hythe installs, see cni.ConflistName.
const ownConflist = "10-hythe.conflist"

// ownVNI is the default of hythe node, see overlay.Settings.
const ownVNI = 72

// otherNetworks are links of other pod networks, by the beginnings of their names.
var otherNetworks = []struct{ prefix, who, remedy string }{
	{"flannel", "flannel", "remove flannel's DaemonSet, then ip link delete it on each node"},
	{"cali", "Calico", "remove Calico, then the pods that it attached"},
	{"vxlan.calico", "Calico", "remove Calico"},
	{"tunl0", "", ""}, // the kernel's own
	{"cilium", "Cilium", "remove Cilium (cilium uninstall)"},
	{"lxc", "Cilium", "remove Cilium, then the pods that it attached"},
	{"weave", "Weave Net", "remove Weave Net (weave reset)"},
	{"antrea", "Antrea", "remove Antrea"},
	{"ovn", "OVN-Kubernetes", "remove OVN-Kubernetes"},
	{"kube-bridge", "kube-router", "remove kube-router (kube-router --cleanup-config)"},
	{"cni0", "another bridge network", "remove the network that made it, or give hythe node --cni-conf-dir \"\""},
}

func otherCNI(f Facts) []Finding {
	l := list{check: "cni"}
	own := slices.IndexFunc(f.CNIFiles, func(c CNIFile) bool { return c.Name == ownConflist })
	for i, c := range f.CNIFiles {
		switch {
		case i == own:
		case c.Error != "":
			l.add(Warning, "repair or remove "+f.CNIDir+"/"+c.Name, "%s cannot be read by the container runtime: %s", c.Name, c.Error)
		case c.Name < ownConflist:
			l.add(Error, "remove "+f.CNIDir+"/"+c.Name+" when its network is gone, or leave pods to it: hythe node --cni-conf-dir \"\"",
				"the container runtime takes %s (%s) before %s: pods are attached by another network", c.Name, strings.Join(c.Plugins, ", "), ownConflist)
		default:
			l.add(Warning, "remove "+f.CNIDir+"/"+c.Name+" when its network is gone", "%s (%s) comes after Hythe's and is not used", c.Name, strings.Join(c.Plugins, ", "))
		}
	}
	if f.Cluster.Known && f.CNIDir != "" && own < 0 {
		l.add(Error, "see hythe get nodes for what is missing until it is installed", "%s is not in %s: pods cannot be attached", ownConflist, f.CNIDir)
	}
	for _, network := range otherNetworks {
		var names []string
		for _, k := range f.Links {
			if network.who != "" && strings.HasPrefix(k.Name, network.prefix) {
				names = append(names, k.Name)
			}
		}
		if len(names) > 0 {
			l.add(Warning, network.remedy, "there are links of %s: %s", network.who, shorten(names))
		}
	}
	for _, k := range f.Links {
		if k.Type == "vxlan" && k.Name != "hythe.vxlan" && k.VNI == ownVNI {
			l.add(Error, "give one of them another VNI", "%s has the VNI of Hythe's overlay", k.Name)
		}
	}
	return l.orOK("no other pod network was found")
}

func shorten(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

func otherProxies(f Facts) []Finding {
	l := list{check: "proxy"}
	runs := false
	for _, p := range f.Processes {
		if p == "kube-proxy" || p == "kube-router" {
			runs = true
			l.add(Error, "remove its DaemonSet (kubectl -n kube-system delete daemonset "+p+"), or leave Services to it: hythe node --without-proxy",
				"%s runs on this machine: each Service is translated by whichever is first", p)
		}
	}
	remedy := "run kube-proxy --cleanup once on this node, or restart it, now that kube-proxy is gone"
	if runs {
		remedy = "they go with kube-proxy: kube-proxy --cleanup"
	}
	var left []string
	for _, c := range f.Chains {
		if strings.HasPrefix(c.Table, "kube-proxy") || strings.HasPrefix(c.Name, "KUBE-SERVICES") || strings.HasPrefix(c.Name, "KUBE-SVC-") {
			left = append(left, c.Family+" "+c.Table+" "+c.Name)
		}
	}
	if len(left) > 0 {
		l.add(Error, remedy, "there are rules of kube-proxy: %s", shorten(left))
	}
	if f.IPVS {
		strict := ""
		if f.Sysctls["net/ipv4/conf/all/arp_ignore"] != "1" {
			strict = "; net/ipv4/conf/all/arp_ignore is not 1 (strictARP), so every node answers ARP for each VIP"
		}
		l.add(Error, remedy, "there are virtual servers of IPVS, or its device kube-ipvs0%s", strict)
	}
	for _, k := range f.Links {
		if k.Name == "nodelocaldns" {
			l.add(Warning, "see that its addresses are not those of a Service that Hythe serves", "there is a node-local DNS cache with addresses %v", k.Addresses)
		}
	}
	return l.orOK("no other Service proxy was found")
}

// balancers are the names of processes (comm) that announce addresses.
var balancers = map[string]string{
	"kube-vip":   "remove kube-vip's Services mode (svc_enable=false), the address of the control plane may stay with it",
	"keepalived": "see that its addresses are in no AddressPool",
	"speaker":    "remove MetalLB (kubectl delete namespace metallb-system), or keep its pools apart from Hythe's",
	"metallb":    "remove MetalLB, or keep its pools apart from Hythe's",
}

func otherBalancers(f Facts) []Finding {
	l := list{check: "balancer"}
	for _, p := range f.Processes {
		if remedy, ok := balancers[p]; ok {
			l.add(Warning, remedy, "%s runs on this machine and may announce the same addresses", p)
		}
	}
	for _, k := range f.Links {
		for _, a := range k.Addresses {
			if slices.Contains(f.Cluster.VIPs, a.Addr()) {
				l.add(Error, "ip address delete "+a.String()+" dev "+k.Name+", and end what put it there (kube-vip, keepalived, kube-proxy in IPVS mode)",
					"the VIP %s is on %s: this machine takes its packets for itself, and may answer ARP for it", a.Addr(), k.Name)
			}
		}
	}
	return l.orOK("no other load balancer was found")
}

func neighbours(f Facts) []Finding {
	l := list{check: "neighbours"}
	own := map[string]string{}
	for _, k := range f.Links {
		if k.MAC != "" && k.Type != "vxlan" {
			own[k.MAC] = k.Name
		}
	}
	nodes := map[string]string{} // by MAC
	for _, n := range f.Neighbours {
		if name := own[n.MAC]; name != "" && n.MAC != "" && name == n.Device {
			l.add(Error, "give one of the two machines another MAC address; clones of a virtual machine often share one",
				"%s on the LAN has the MAC address %s, which is that of %s here", n.Address, n.MAC, name)
		}
		for _, p := range f.Cluster.Peers {
			if p.Address != n.Address {
				continue
			}
			if other := nodes[n.MAC]; other != "" && other != p.Node {
				l.add(Error, "give one of them another MAC address", "Nodes %s and %s have one MAC address, %s", other, p.Node, n.MAC)
			}
			nodes[n.MAC] = p.Node
		}
	}
	return l.orOK("all %d neighbours differ from this machine and the nodes from each other", len(f.Neighbours))
}

// firewall finds chains of others that drop what they do not know. An accept in one table does not overrule them.
func firewall(f Facts) []Finding {
	l := list{check: "firewall"}
	for _, c := range f.Chains {
		name := c.Family + " " + c.Table + " " + c.Name
		switch {
		case !c.Drop:
		case c.Hook == "forward":
			l.add(Warning, "accept the pod CIDRs there, or let the chain accept (for Docker: iptables -P FORWARD ACCEPT)",
				"%s drops forwarded packets that none of its rules accepts: pods and Services may be cut off", name)
		case c.Hook == "input":
			l.add(Warning, "accept there from the other nodes: UDP 4789 (overlay) and 7472 (heartbeats), and ICMP",
				"%s drops what comes to this machine and none of its rules accepts", name)
		}
	}
	return l.orOK("no chain drops by default what is forwarded or comes in")
}

func clock(f Facts) []Finding {
	l := list{check: "clock"}
	if f.ClockUnsynchronised {
		l.add(Warning, "run a time service (chrony, systemd-timesyncd): certificates are judged by this clock", "the kernel's clock is not synchronised")
	}
	return l.orOK("the clock is synchronised")
}

func conntrack(f Facts) []Finding {
	l := list{check: "conntrack"}
	if f.ConntrackMax == 0 {
		return l.orOK("connections are not tracked yet")
	}
	full := 100 * f.ConntrackCount / f.ConntrackMax
	remedy := fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d, on the machine itself", 2*f.ConntrackMax)
	switch {
	case full >= 95:
		l.add(Error, remedy, "%d of %d connections are tracked: new ones are dropped", f.ConntrackCount, f.ConntrackMax)
	case full >= 75:
		l.add(Warning, remedy, "%d of %d connections are tracked", f.ConntrackCount, f.ConntrackMax)
	case f.ConntrackMax < 65536:
		l.add(Warning, "sysctl -w net.netfilter.nf_conntrack_max=262144, on the machine itself", "only %d connections can be tracked", f.ConntrackMax)
	}
	return l.orOK("%d of %d connections are tracked", f.ConntrackCount, f.ConntrackMax)
}

func limits(f Facts) []Finding {
	l := list{check: "limits"}
	if f.InotifyError != "" {
		l.add(Error, "sysctl -w fs.inotify.max_user_instances=8192 fs.inotify.max_user_watches=524288", "no more folders can be watched: %s", f.InotifyError)
	}
	if f.FilesMax > 0 && f.FilesOpen >= f.FilesMax/10*9 {
		l.add(Error, "sysctl -w fs.file-max, and see who has so many: ls /proc/*/fd | wc -l", "%d of %d files are open", f.FilesOpen, f.FilesMax)
	}
	return l.orOK("folders can be watched and files opened")
}

func disks(f Facts) []Finding {
	l := list{check: "disk"}
	for _, d := range f.Disks {
		switch {
		case d.ReadOnly:
			l.add(Error, "mount it writable", "%s is on a read-only file system", d.Path)
		case d.FreeBytes < 1<<20 || d.TotalNodes > 0 && d.FreeNodes < 100:
			l.add(Error, "free some: addresses of pods and VIPs cannot be written down", "%s is full: %d KiB and %d files left", d.Path, d.FreeBytes>>10, d.FreeNodes)
		case d.FreeBytes < 100<<20 || d.TotalBytes > 0 && d.FreeBytes < d.TotalBytes/50:
			l.add(Warning, "free some", "%s has only %d MiB left", d.Path, d.FreeBytes>>20)
		}
	}
	if len(f.Disks) == 0 {
		return l.orOK("no folder was looked at")
	}
	return l.orOK("there is space in all folders")
}
