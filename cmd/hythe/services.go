package main

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/overlay"
	"hythe.dev/hythe/node/proxy"
)

// A serviceOptions is what an administrator decides about Services.
type serviceOptions struct {
	externalIPs          bool
	nodePortAddresses    nodePortAddresses
	nodePortSourceRanges bool
	healthz              string
}

func (o *serviceOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.externalIPs, "external-ips", false, "serve spec.externalIPs of Services: everybody who may write a Service can then take any address but those of nodes, pods and other Services")
	f.Var(&o.nodePortAddresses, "nodeport-addresses", `where NodePorts are: "primary" for the node's first InternalIP of each family, or ranges such as 192.0.2.0/24; separated by commas (default: all addresses)`)
	f.BoolVar(&o.nodePortSourceRanges, "nodeport-source-ranges", false, "hold NodePorts of LoadBalancer Services to spec.loadBalancerSourceRanges too")
	f.StringVar(&o.healthz, "healthz-address", "", `where load balancers ask whether to send to this node (/healthz), such as ":10256"; empty: nowhere`)
}

// A nodePortAddresses is the value of a flag.
type nodePortAddresses struct {
	words   []string
	ranges  []netip.Prefix
	primary bool
}

// Set implements pflag.Value.
func (v *nodePortAddresses) Set(text string) error {
	words := strings.Split(text, ",")
	ranges, primary, err := proxy.ParseNodePortAddresses(words)
	if err != nil {
		return err
	}
	*v = nodePortAddresses{words, ranges, primary}
	return nil
}

// String implements pflag.Value.
func (v *nodePortAddresses) String() string { return strings.Join(v.words, ",") }

// Type implements pflag.Value.
func (v *nodePortAddresses) Type() string { return "ranges" }

// ownAddresses are those of this node, and when they were read: to list them takes longer than to write a change of one
// Service.
type ownAddresses struct {
	addrs []netip.Addr
	at    time.Time
}

// read lists them anew after repairEvery. Where that fails, those of before stay.
func (l *ownAddresses) read() []netip.Addr {
	if l.at.IsZero() || time.Since(l.at) > repairEvery {
		if addrs, err := nodeAddresses(); err == nil {
			l.addrs, l.at = addrs, time.Now()
		}
	}
	return l.addrs
}

// proxySettings are those for the next Build.
func (n *node) proxySettings() (proxy.Settings, []model.Problem) {
	settings := proxy.DefaultSettings()
	settings.BalancerClasses = n.balancerClasses
	settings.ResetGone = n.resetGone
	settings.ExternalIPs, settings.NodePortSourceRanges = n.services.externalIPs, n.services.nodePortSourceRanges
	settings.NodePortRanges, settings.NodePortPrimary = n.services.nodePortAddresses.ranges, n.services.nodePortAddresses.primary
	if n.overlay.Mode == overlay.None {
		settings.Overlay = ""
	}
	hosted, problems := n.hostPorts()
	settings.HostPorts, settings.LocalAddresses = hosted.ports, hosted.addrs
	if len(hosted.ports) == 0 {
		settings.LocalAddresses = n.addrs.read()
	}
	return settings, slices.Clone(problems)
}

// healthAt is where the node is asked about Services: nil is everywhere, and empty, as while the node is not registered and
// its addresses not known, nowhere.
func (o *serviceOptions) healthAt(settings proxy.Settings, node *model.Node) []netip.Prefix {
	if len(o.nodePortAddresses.words) == 0 {
		return nil
	}
	return append([]netip.Prefix{}, settings.NodePortsAt(node)...)
}

// setHealth makes the node answer load balancers for the Services of a Snapshot, at the addresses where its NodePorts are.
func (n *node) setHealth(s *model.Snapshot, settings proxy.Settings) []model.Problem {
	state, problems := n.checks.Build(s, n.name, settings.OwnPorts, n.services.healthAt(settings, s.Nodes[n.name]))
	n.health.Set(state)
	return problems
}
