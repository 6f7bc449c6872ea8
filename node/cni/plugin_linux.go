package cni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"hythe.dev/hythe/node/kernel/link"
)

// A Plugin answers the calls of a container runtime, each of which is a process of its own. The namespace that it
// runs in is the node's.
type Plugin struct {
	Stdout io.Writer // of results
	Stderr io.Writer // of what does not change the answer
	Now    func() Uptime
}

// Funcs are the plugin's commands.
func (p Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}

// Add attaches a container. For a container that has an address it is the same again.
func (p Plugin) Add(args *skel.CmdArgs) error {
	conf, config, err := readConfigs(args.StdinData)
	if err != nil {
		return err
	}
	request := Request{args.ContainerID, args.IfName}
	ports, err := hostPorts(conf)
	if err != nil {
		return err
	}
	lease, isNew, err := p.allocate(conf.store(), request, config, podOf(args.Args), ports)
	if err != nil {
		return err
	}
	pod := Build(request, lease, config)
	if err := link.AddPod(context.Background(), args.Netns, pod); err != nil {
		if isNew {
			err = errors.Join(err, p.undo(conf.store(), request))
		}
		return attachError(err)
	}
	return result(pod, lease, args.Netns).print(p.Stdout, conf.CNIVersion)
}

func hostPorts(conf netConf) ([]HostPort, error) {
	ports, err := parseHostPorts(conf.RuntimeConfig)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	return ports, nil
}

// allocate returns the lease of the request, a new one if it has none. Its host ports come and go with it, in one file.
func (p Plugin) allocate(s store, r Request, config Config, pod string, ports []HostPort) (lease Lease, isNew bool, err error) {
	err = s.update(func(l *Leases) (bool, error) {
		if _, found := l.Find(r); !found {
			if _, err := l.Allocate(r, config.PodCIDRs, p.Now()); err != nil {
				return false, err
			}
			isNew = true
		}
		changed := l.SetHostPorts(r, pod, ports)
		lease, _ = l.Find(r)
		return isNew || changed, nil
	})
	switch {
	case err == nil:
		return lease, isNew, nil
	case errors.Is(err, ErrResting):
		return Lease{}, false, types.NewError(types.ErrTryAgainLater, err.Error(), "The runtime tries again by itself.")
	case errors.Is(err, ErrNoAddress):
		return Lease{}, false, types.NewError(CodeNoAddress, err.Error(), "All are in use: move pods to other nodes, or give the Node a larger spec.podCIDR by registering it anew.")
	default:
		return Lease{}, false, types.NewError(types.ErrIOFailure, err.Error(), "")
	}
}

// undo takes back a new lease and what there is of its link.
func (p Plugin) undo(s store, r Request) error {
	return errors.Join(link.DeletePod(HostName(r)), p.free(s, r))
}

func (p Plugin) free(s store, r Request) error {
	return s.update(func(l *Leases) (bool, error) { return l.Free(r, p.Now()), nil })
}

func attachError(err error) error {
	if errors.Is(err, link.ErrNoNamespace) {
		return types.NewError(types.ErrInvalidNetNS, err.Error(), "")
	}
	return types.NewError(CodeAttach, err.Error(), "")
}

// Del detaches a container. What is gone already is detached. A lease that cannot be ended now, as on a full
// disk, is ended by Sweep.
func (p Plugin) Del(args *skel.CmdArgs) error {
	conf, err := parseNetConf(args.StdinData)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	request := Request{args.ContainerID, args.IfName}
	if err := link.DeletePod(HostName(request)); err != nil {
		return types.NewError(CodeAttach, err.Error(), "")
	}
	if err := p.free(conf.store(), request); err != nil {
		fmt.Fprintf(p.Stderr, "the address of container %s stays reserved for now: %v\n", args.ContainerID, err)
	}
	return nil
}

// Check fails if the container is not attached as Add left it.
func (p Plugin) Check(args *skel.CmdArgs) error {
	conf, config, err := readConfigs(args.StdinData)
	if err != nil {
		return err
	}
	request := Request{args.ContainerID, args.IfName}
	ports, err := hostPorts(conf)
	if err != nil {
		return err
	}
	var lease Lease
	var found bool
	err = conf.store().update(func(l *Leases) (bool, error) {
		lease, found = l.Find(request)
		return false, nil
	})
	if err != nil {
		return types.NewError(types.ErrIOFailure, err.Error(), "")
	}
	if !found {
		return types.NewError(types.ErrUnknownContainer, "the container has no address", "")
	}
	if !slices.Equal(lease.HostPorts, ports) {
		return types.NewError(CodeNotAsAdded, "the container has other host ports", fmt.Sprintf("%v, not %v", lease.HostPorts, ports))
	}
	// The MTU may have changed since: pods keep theirs.
	missing, err := link.CheckPod(context.Background(), args.Netns, Build(request, lease, config))
	if err != nil {
		return attachError(err)
	}
	missing = slices.DeleteFunc(missing, func(s string) bool { return strings.Contains(s, " mtu ") && strings.HasPrefix(s, "set link ") })
	if len(missing) > 0 {
		return types.NewError(CodeNotAsAdded, "the container is not attached as it was", strings.Join(missing, "; "))
	}
	return nil
}

// GC detaches all containers that the runtime does not name as valid.
func (p Plugin) GC(args *skel.CmdArgs) error {
	conf, err := parseNetConf(args.StdinData)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	valid := map[Request]bool{}
	for _, a := range conf.ValidAttachments {
		valid[Request{a.ContainerID, a.IfName}] = true
	}
	var errs []error
	err = conf.store().update(func(l *Leases) (changed bool, err error) {
		for _, lease := range slices.Clone(l.Leases) {
			if valid[lease.Request] {
				continue
			}
			if err := link.DeletePod(HostName(lease.Request)); err != nil {
				errs = append(errs, err)
				continue
			}
			changed = l.Free(lease.Request, p.Now()) || changed
		}
		return changed, nil
	})
	if err = errors.Join(append(errs, err)...); err != nil {
		return types.NewError(types.ErrIOFailure, err.Error(), "")
	}
	return nil
}

// Status fails if Add would.
func (p Plugin) Status(args *skel.CmdArgs) error {
	conf, config, err := readConfigs(args.StdinData)
	if err == nil {
		err = conf.store().update(func(l *Leases) (bool, error) {
			// Not changed: what was allocated is forgotten.
			_, err := l.Allocate(Request{}, config.PodCIDRs, p.Now())
			return false, err
		})
	}
	if err != nil {
		return types.NewError(codeNotAvailable, "the plugin is not available", err.Error())
	}
	return nil
}

// readConfigs reads what the runtime hands over, and what the agent wrote. While the agent has written nothing,
// the runtime is to try again.
func readConfigs(stdin []byte) (netConf, Config, error) {
	conf, err := parseNetConf(stdin)
	if err != nil {
		return netConf{}, Config{}, types.NewError(types.ErrInvalidNetworkConfig, err.Error(), "")
	}
	data, err := os.ReadFile(conf.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return netConf{}, Config{}, types.NewError(types.ErrTryAgainLater, "hythe node has not set up this node yet", err.Error())
	}
	if err != nil {
		return netConf{}, Config{}, types.NewError(types.ErrIOFailure, fmt.Sprintf("read plugin configuration: %v", err), "")
	}
	config, err := parseConfig(data)
	if err != nil {
		return netConf{}, Config{}, types.NewError(types.ErrDecodingFailure, err.Error(), conf.ConfigFile)
	}
	return conf, config, nil
}

// Sweep ends leases that were given more than age ago and whose link is gone, for runtimes that never call GC.
// It returns how many. An empty bootIDFile means BootIDFile. It runs in the node's namespace. An empty bootIDFile means the constant of that name.
func Sweep(dataDir, bootIDFile string, now, age Uptime) (int, error) {
	links, err := link.PodLinks()
	if err != nil {
		return 0, err
	}
	ended := 0
	err = openStore(dataDir, bootIDFile).update(func(l *Leases) (bool, error) {
		for _, lease := range slices.Clone(l.Leases) {
			if now-lease.Since > age && !slices.Contains(links, HostName(lease.Request)) {
				l.Free(lease.Request, now)
				ended++
			}
		}
		return ended > 0, nil
	})
	return ended, err
}

// ReadLeases returns the leases for people to look at. An empty bootIDFile means BootIDFile.
func ReadLeases(dataDir, bootIDFile string) (*Leases, error) {
	var leases *Leases
	err := openStore(dataDir, bootIDFile).update(func(l *Leases) (bool, error) {
		leases = l
		return false, nil
	})
	return leases, err
}

// Repair gives the node's ends of pods' links back what they lost, such as a route that somebody deleted. It returns
// how many changes that took. Leases younger than age are left to their ADD, which may not be over. It runs in the
// node's namespace.
func Repair(ctx context.Context, dataDir, bootIDFile string, now, age Uptime) (int64, error) {
	leases, err := ReadLeases(dataDir, bootIDFile)
	if err != nil {
		return 0, err
	}
	pods := make([]link.Pod, 0, len(leases.Leases))
	for _, lease := range leases.Leases {
		if now-lease.Since >= age {
			pods = append(pods, Build(lease.Request, lease, Config{}))
		}
	}
	return link.RepairPods(ctx, pods)
}

// openStore opens the store of a node as Install laid it out.
func openStore(dataDir, bootIDFile string) store {
	return netConf{DataDir: dataDir, BootIDFile: cmp.Or(bootIDFile, BootIDFile)}.store()
}

// An addResult is what ADD returns.
type addResult types100.Result

// print writes it in the version that was asked for.
func (r *addResult) print(w io.Writer, version string) error {
	converted, err := (*types100.Result)(r).GetAsVersion(version)
	if err != nil {
		return types.NewError(types.ErrIncompatibleCNIVersion, err.Error(), "")
	}
	if err := converted.PrintTo(w); err != nil {
		return types.NewError(types.ErrIOFailure, fmt.Sprintf("write result: %v", err), "")
	}
	return nil
}

func result(pod link.Pod, lease Lease, netns string) *addResult {
	inside := 1
	r := &addResult{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: pod.HostName, Mac: pod.HostMAC.String(), Mtu: pod.MTU},
			{Name: pod.Name, Mac: pod.MAC.String(), Mtu: pod.MTU, Sandbox: netns},
		},
	}
	for _, a := range lease.Addresses {
		via := net.IP(gateway(a).AsSlice())
		r.IPs = append(r.IPs, &types100.IPConfig{Interface: &inside, Address: ipNet(netip.PrefixFrom(a, a.BitLen())), Gateway: via})
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(everything(a)), GW: via})
	}
	return r
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
