package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// Options say where Read looks.
type Options struct {
	// CNIDir is the folder of the container runtime's network configuration; empty: not looked at.
	CNIDir string
	// Dirs are folders that Hythe writes to. One that is not there yet stands for its parent.
	Dirs []string
	// Cluster is passed on.
	Cluster Cluster
}

// Read reads all facts of this machine, in the calling thread's network namespace. What cannot be read is in Unread.
func Read(ctx context.Context, o Options) Facts {
	f := Facts{Root: os.Geteuid() == 0, Cluster: o.Cluster, CNIDir: o.CNIDir, Sysctls: map[string]string{}}
	note := func(what string, err error) {
		if err != nil {
			f.Unread = append(f.Unread, fmt.Sprintf("cannot read %s: %v", what, err))
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		f.Release = unix.ByteSliceToString(name.Release[:])
	}
	if f.Root {
		f.Features = tryFeatures(ctx)
		note("nftables", f.readChains())
	}
	note("links", f.readLinks())
	note("routes", f.readRoutes())
	note("neighbours", f.readNeighbours())
	f.readSysctls()
	note("the CNI configuration", f.readCNI())
	f.readProcesses()
	f.readLimits()
	for _, dir := range o.Dirs {
		note(dir, f.readDisk(dir))
	}
	return f
}

func (f *Facts) readChains() error {
	chains, err := readback.ForeignChains()
	for _, c := range chains {
		f.Chains = append(f.Chains, Chain(c))
	}
	for _, path := range []string{"/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"} {
		if data, err := os.ReadFile(path); err == nil {
			f.LegacyTables = append(f.LegacyTables, strings.Fields(string(data))...)
		}
	}
	return err
}

func (f *Facts) readLinks() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		a := l.Attrs()
		k := Link{Name: a.Name, Type: l.Type(), MTU: a.MTU, Up: a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown, MAC: a.HardwareAddr.String()}
		if k.MAC == "00:00:00:00:00:00" {
			k.MAC = "" // loopback
		}
		if v, ok := l.(*netlink.Vxlan); ok {
			k.VNI, k.Port = v.VxlanId, v.Port
		}
		if a.Name == "kube-ipvs0" {
			f.IPVS = true
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			if p, ok := prefixOf(addr.IP, addr.Mask); ok && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsLoopback() {
				k.Addresses = append(k.Addresses, p)
			}
		}
		f.Links = append(f.Links, k)
	}
	slices.SortFunc(f.Links, func(a, b Link) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func prefixOf(ip, mask []byte) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}, false
	}
	ones := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			ones++
		}
	}
	if a.Is4In6() && ones > 32 {
		ones -= 96
	}
	return netip.PrefixFrom(a.Unmap(), ones), true
}

// namesByIndex are the names of all links.
func namesByIndex() (map[int]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

func (f *Facts) readRoutes() error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	names, err := namesByIndex()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue // some kernels' default route
		}
		dst, ok := prefixOf(r.Dst.IP, r.Dst.Mask)
		if !ok || dst.Addr().IsLinkLocalUnicast() || dst.Addr().IsMulticast() || r.Type == unix.RTN_LOCAL {
			continue
		}
		own := r.Protocol == link.ProtocolOverlay || r.Protocol == link.ProtocolPod || r.Protocol == unix.RTPROT_KERNEL
		f.Routes = append(f.Routes, Route{Dst: dst.Masked(), Device: names[r.LinkIndex], Own: own})
	}
	return nil
}

func (f *Facts) readNeighbours() error {
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	names, err := namesByIndex()
	if err != nil {
		return err
	}
	for _, n := range neighbours {
		a, ok := netip.AddrFromSlice(n.IP)
		usable := n.State&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY|netlink.NUD_PROBE) != 0
		if ok && usable && len(n.HardwareAddr) == 6 {
			f.Neighbours = append(f.Neighbours, Neighbour{Address: a.Unmap(), MAC: n.HardwareAddr.String(), Device: names[n.LinkIndex]})
		}
	}
	slices.SortFunc(f.Neighbours, func(a, b Neighbour) int { return a.Address.Compare(b.Address) })
	return nil
}

// readSysctls reads those that count. /proc/sys/net is that of the calling thread's namespace.
func (f *Facts) readSysctls() {
	names := []string{
		"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/arp_announce",
		"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables", "net/bridge/bridge-nf-call-arptables",
	}
	for _, device := range append([]string{"all", "default"}, linkNames(f.Links)...) {
		names = append(names, "net/ipv4/conf/"+device+"/rp_filter", "net/ipv4/conf/"+device+"/forwarding")
	}
	for _, name := range names {
		if data, err := os.ReadFile("/proc/sys/" + name); err == nil {
			f.Sysctls[name] = strings.TrimSpace(string(data))
		}
	}
	f.ConntrackCount = number("/proc/sys/net/netfilter/nf_conntrack_count")
	f.ConntrackMax = number("/proc/sys/net/netfilter/nf_conntrack_max")
}

func linkNames(links []Link) []string {
	out := make([]string, len(links))
	for i, l := range links {
		out[i] = l.Name
	}
	return out
}

// number reads the first number of a file, 0 if there is none.
func number(path string) int {
	data, err := os.ReadFile(path)
	fields := strings.Fields(string(data))
	if err != nil || len(fields) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(fields[0])
	return n
}

// readCNI reads the files that a container runtime would (libcni: .conf, .conflist and .json, by name).
func (f *Facts) readCNI() error {
	if f.CNIDir == "" {
		return nil
	}
	entries, err := os.ReadDir(f.CNIDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		f.CNIFiles = append(f.CNIFiles, cniFile(f.CNIDir, e.Name()))
	}
	return err
}

func cniFile(dir, name string) CNIFile {
	out := CNIFile{Name: name}
	var content struct {
		Type    string
		Plugins []struct{ Type string }
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err == nil {
		err = json.Unmarshal(data, &content)
	}
	if err != nil {
		out.Error = err.Error()
		return out
	}
	if content.Type != "" {
		out.Plugins = append(out.Plugins, content.Type)
	}
	for _, p := range content.Plugins {
		out.Plugins = append(out.Plugins, p.Type)
	}
	return out
}

// readProcesses looks for the names of processes that do Hythe's work too. Nothing but their names is kept.
func (f *Facts) readProcesses() {
	paths, _ := filepath.Glob("/proc/[0-9]*/comm")
	found := map[string]bool{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		name := strings.TrimSpace(string(data))
		_, balancer := balancers[name]
		if err == nil && (balancer || name == "kube-proxy" || name == "kube-router") && sameNetwork(filepath.Dir(path)) {
			found[name] = true
		}
	}
	for name := range found {
		f.Processes = append(f.Processes, name)
	}
	slices.Sort(f.Processes)
}

// sameNetwork says whether a process is in the calling thread's network namespace.
func sameNetwork(proc string) bool {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	other, err2 := os.Readlink(proc + "/ns/net")
	return err != nil || err2 != nil || own == other
}

func (f *Facts) readLimits() {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		f.InotifyError = err.Error()
	} else {
		_ = unix.Close(fd)
	}
	f.FilesOpen = number("/proc/sys/fs/file-nr")
	f.FilesMax = number("/proc/sys/fs/file-max")
	var clock unix.Timex
	state, err := unix.Adjtimex(&clock)
	f.ClockUnsynchronised = err == nil && (state == unix.TIME_ERROR || clock.Status&unix.STA_UNSYNC != 0)
}

func (f *Facts) readDisk(dir string) error {
	path := dir
	for {
		if _, err := os.Stat(path); err == nil || path == "/" || path == "." {
			break
		}
		path = filepath.Dir(path)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return err
	}
	f.Disks = append(f.Disks, Disk{
		Path: dir, FreeBytes: s.Bavail * uint64(s.Bsize), TotalBytes: s.Blocks * uint64(s.Bsize), FreeNodes: s.Ffree, TotalNodes: s.Files,
		ReadOnly: s.Flags&unix.ST_RDONLY != 0,
	})
	return nil
}

// OwnAddress is the IPv4 address that this machine uses towards the outside, the zero Addr if it has no default route.
func OwnAddress() netip.Addr {
	routes, err := netlink.RouteGet([]byte{192, 0, 2, 1}) // TEST-NET-1 (RFC 5737): no packet is sent
	if err != nil || len(routes) == 0 {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(routes[0].Src)
	return a.Unmap()
}
