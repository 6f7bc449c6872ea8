package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/proxy"
)

// hosted are the host ports that the Service datapath has, and what they depend on.
type hosted struct {
	ports []proxy.HostPort
	addrs []netip.Addr // of this node; nil where there are no ports
}

// servesHostPorts says whether pods get host ports: the plugin and the Service datapath are both ours.
func (n *node) servesHostPorts() bool { return n.cniConfDir != "" && n.table != nil }

// hostPorts returns the host ports for the next Build. Where the leases cannot be read, those of before stay.
func (n *node) hostPorts() (hosted, []model.Problem) {
	if !n.servesHostPorts() {
		return hosted{}, nil
	}
	now, err := readHosted(n.dataDir, n.bootID)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		return n.hosted, []model.Problem{model.Problemf(model.ObjectRef{Kind: "Node", Name: n.name}, "HostPortsNotRead",
			"Host ports of pods stay as they were, since what they should be cannot be read: %v.", err)}
	}
	n.hosted = now
	return now, nil
}

// watchHostPorts wakes the Service datapath when the plugin gave or took host ports, or the addresses of the node changed.
// Where the folder cannot be watched, that is found by looking.
func (n *node) watchHostPorts(ctx context.Context) error {
	var events chan fsnotify.Event
	var failures chan error
	if watcher, err := watchLeases(n.dataDir); err == nil {
		defer watcher.Close()
		events, failures = watcher.Events, watcher.Errors
	} else {
		n.log.Warn("host ports of pods are served some seconds late", "error", err)
	}
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-events:
			if !open {
				events = nil
			}
			if e.Name != cni.LeasesFile(n.dataDir) {
				continue
			}
		case _, open := <-failures: // events may have been lost: look
			if !open {
				failures = nil
			}
		case <-tick.C:
		}
		now, err := readHosted(n.dataDir, n.bootID)
		n.mu.Lock()
		same := err != nil || reflect.DeepEqual(now, n.hosted)
		n.mu.Unlock()
		if !same {
			n.wakeProxy()
		}
	}
}

// watchLeases tells of changes in the folder of the leases.
func watchLeases(dataDir string) (*fsnotify.Watcher, error) {
	dir := filepath.Dir(cni.LeasesFile(dataDir))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("watch leases: %w", err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch leases: %w", err)
	}
	if err := watcher.Add(dir); err != nil {
		_ = watcher.Close()
		return nil, fmt.Errorf("watch leases: %w", err)
	}
	return watcher, nil
}

func readHosted(dataDir, bootID string) (hosted, error) {
	leases, err := cni.ReadLeases(dataDir, bootID)
	if err != nil {
		return hosted{}, err
	}
	out := hosted{ports: hostPortsOf(leases)}
	if len(out.ports) == 0 {
		return hosted{}, nil
	}
	if out.addrs, err = nodeAddresses(); err != nil {
		return hosted{}, err
	}
	return out, nil
}

// hostPortsOf are in the order in which the pods came.
func hostPortsOf(leases *cni.Leases) []proxy.HostPort {
	protocols := map[string]proxy.Protocol{"tcp": proxy.TCP, "udp": proxy.UDP, "sctp": proxy.SCTP}
	var out []proxy.HostPort
	for _, lease := range leases.Leases {
		var owner model.Key
		owner.Namespace, owner.Name, _ = strings.Cut(lease.Pod, "/")
		for _, p := range lease.HostPorts {
			out = append(out, proxy.HostPort{Addr: p.HostIP, Protocol: protocols[p.Protocol], Port: p.HostPort,
				Pods: lease.Addresses, PodPort: p.ContainerPort, Owner: owner})
		}
	}
	return out
}

// nodeAddresses returns the addresses of this node, sorted. Those of IPv6 links are left out: each pod's link has one.
func nodeAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses of this node: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && (prefix.Addr().Is4() || !prefix.Addr().IsLinkLocalUnicast()) {
			out = append(out, prefix.Addr())
		}
	}
	if len(out) == 0 {
		return nil, errors.New("list addresses of this node: it has none")
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), nil
}
