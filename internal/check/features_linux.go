package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/nft"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/proxy"
)

// tryFeatures tries what Hythe needs of the kernel in a network namespace that ends with this call: its thread is in that
// namespace, and dies.
func tryFeatures(ctx context.Context) map[string]string {
	done := make(chan map[string]string)
	go func() {
		runtime.LockOSThread() // never unlocked
		out := map[string]string{}
		defer func() { done <- out }()
		switch err := unix.Unshare(unix.CLONE_NEWNET); {
		case errors.Is(err, unix.EPERM):
			return // an agent in a pod has no CAP_SYS_ADMIN: that says nothing of the kernel
		case err != nil:
			out["network namespaces"] = err.Error()
			return
		}
		say := func(name string, err error) {
			out[name] = ""
			if err != nil {
				out[name] = err.Error()
			}
		}
		say(FeatureDatapath, tryDatapath(ctx, proxy.Random))
		say(FeatureOwner, tryOwner())
		if out[FeatureDatapath] == "" {
			say(FeatureHash, tryDatapath(ctx, proxy.BySource))
		}
		say(FeatureVXLAN, tryLink(&netlink.Vxlan{LinkAttrs: named("check.vxlan"), VxlanId: 1, Port: 4789}))
		say(FeatureVeth, tryLink(&netlink.Veth{LinkAttrs: named("check.a"), PeerName: "check.b"}))
		say(FeatureTUN, tryTUN())
		_, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		say(FeatureConntrack, err)
	}()
	return <-done
}

func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func tryLink(l netlink.Link) error {
	if err := netlink.LinkAdd(l); err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

func tryTUN() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	return unix.Close(fd)
}

// tryDatapath writes the very table that a node gets, with a Service of two endpoints, one of which is chosen like that.
func tryDatapath(ctx context.Context, choice proxy.Choice) error {
	table, err := nft.New(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	service, endpoint := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.1:80")
	list := []netip.AddrPort{endpoint, netip.AddrPortFrom(endpoint.Addr().Next(), 80)}
	state := proxy.State{
		Frontends: map[proxy.Frontend]proxy.Backends{{Addr: service, Protocol: proxy.TCP, Port: 80}: {Outside: list, Inside: list, Choice: choice}},
		Addresses: proxy.Set[netip.Addr]{service: {}},
	}
	return errors.Join(table.Set(ctx, state), table.Close())
}

// tryOwner says whether the table was taken as its own. Called after tryDatapath, whose table persists.
func tryOwner() error {
	s, err := readback.Table()
	if err == nil && !s.Persist {
		err = errors.New("tables have no owner that they outlive (Linux " + release() + ")")
	}
	return err
}

func release() string {
	data, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return string(data[:max(0, len(data)-1)])
}
