package show

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/internal/inspect"
)

// A Service is one with the datapaths of all nodes.
type Service struct {
	inspect.ServiceAnswer
	Nodes []serviceOnNode `json:"nodes"`
}

type serviceOnNode struct {
	Node string `json:"node"`
	// Differs is empty where the kernel has the Service as Build wants it.
	Differs []string `json:"differs,omitempty"`
}

type objectKey struct{ namespace, name string }

func (k objectKey) compare(o objectKey) int {
	return cmp.Or(cmp.Compare(k.namespace, o.namespace), cmp.Compare(k.name, o.name))
}

// Services merges the answers of all nodes.
func Services(answers []From[[]inspect.ServiceAnswer]) []Item {
	merged := map[objectKey]*Service{}
	for _, from := range answers {
		for _, a := range from.Answer {
			k := objectKey{a.Namespace, a.Name}
			s := merged[k]
			if s == nil {
				s = &Service{ServiceAnswer: a}
				merged[k] = s
			}
			on := serviceOnNode{Node: from.Node}
			for _, f := range a.Frontends {
				if f.Differs != "" {
					on.Differs = append(on.Differs, fmt.Sprintf("%s: %s", frontendName(f), f.Differs))
				}
			}
			s.Nodes = append(s.Nodes, on)
		}
	}
	return items(sortedBy(merged, objectKey.compare))
}

func frontendName(f inspect.FrontendAnswer) string {
	if f.Address.IsUnspecified() {
		return fmt.Sprintf("node port %d/%s", f.Port, f.Protocol)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(f.Address, f.Port), f.Protocol)
}

func (s *Service) place() (string, string) { return s.Namespace, s.Name }

func (s *Service) cells(now time.Time) []Cell {
	var addresses []netip.Addr
	var ports, nodePorts []string
	for _, f := range s.Frontends {
		port := strconv.Itoa(int(f.Port)) + "/" + f.Protocol
		switch {
		case f.Address.IsUnspecified():
			nodePorts = append(nodePorts, port)
			continue
		case !slices.Contains(s.VIPs, f.Address) && !slices.Contains(addresses, f.Address):
			addresses = append(addresses, f.Address)
		}
		if !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	inStep := 0
	var differ []string
	for _, n := range s.Nodes {
		if len(n.Differs) == 0 {
			inStep++
			continue
		}
		differ = append(differ, n.Node+": "+strings.Join(n.Differs, ", "))
	}
	ready := outOf(s.Ready, s.Total, Warn)
	if s.Ready == 0 && len(s.Frontends) > 0 {
		ready.Tone = Bad
	}
	vips := list(s.VIPs)
	if s.Type == "LoadBalancer" && len(s.VIPs) == 0 {
		vips = Cell{"<pending>", Warn}
	}
	return []Cell{
		text(s.Namespace), text(s.Name), text(s.Type), list(addresses), words(ports), ready, vips,
		outOf(inStep, len(s.Nodes), Bad), age(s.Since, now), text(strings.Join(slices.Compact(nodePorts), ",")), text(strings.Join(differ, "; ")),
	}
}

// A VIP is one as all nodes see it.
type VIP struct {
	Address  netip.Addr `json:"address"`
	Pool     string     `json:"pool"`
	Services []string   `json:"services"`
	Announce []string   `json:"announce,omitempty"`
	Since    time.Time  `json:"since,omitzero"`
	// Owners are the nodes that say that it is theirs: one, if all is well.
	Owners     []string    `json:"owners"`
	Generation uint64      `json:"generation"`
	OwnedSince time.Time   `json:"ownedSince,omitzero"`
	Conflict   string      `json:"conflict,omitempty"`
	Nodes      []vipOnNode `json:"nodes"`
}

type vipOnNode struct {
	Node    string `json:"node"`
	State   string `json:"state"`
	Healthy bool   `json:"healthy"`
	// Generation and Owner are the newest of which the node has heard.
	Generation uint64 `json:"generation"`
	Owner      string `json:"owner,omitempty"`
}

// VIPs merges the answers of all nodes.
func VIPs(answers []From[[]inspect.VIPAnswer]) []Item {
	merged := map[netip.Addr]*VIP{}
	for _, from := range answers {
		for _, a := range from.Answer {
			v := merged[a.Address]
			if v == nil {
				v = &VIP{Address: a.Address, Pool: a.Pool, Services: a.Services, Announce: a.Announce, Since: a.Since}
				merged[a.Address] = v
			}
			v.Generation = max(v.Generation, a.Generation)
			if a.Owned {
				v.Owners = append(v.Owners, from.Node)
				v.OwnedSince = a.OwnedSince
			}
			if a.Conflict != "" {
				v.Conflict = strings.TrimPrefix(v.Conflict+"; "+from.Node+": "+a.Conflict, "; ")
			}
			v.Nodes = append(v.Nodes, vipOnNode{from.Node, a.State, a.Healthy, a.Generation, a.Owner})
		}
	}
	return items(sortedBy(merged, netip.Addr.Compare))
}

func (v *VIP) place() (string, string) { return "", v.Address.String() }

func (v *VIP) inNamespace(ns string) bool {
	return slices.ContainsFunc(v.Services, func(s string) bool { return strings.HasPrefix(s, ns+"/") })
}

func (v *VIP) cells(now time.Time) []Cell {
	owner := words(v.Owners)
	switch len(v.Owners) {
	case 0:
		owner = Cell{"none", Bad}
	case 1:
		owner.Tone = Good
	default:
		owner.Tone = Bad
	}
	healthy := 0
	states := make([]string, len(v.Nodes))
	for i, n := range v.Nodes {
		states[i] = n.Node + ":" + n.State
		if n.Healthy {
			healthy++
		}
		if n.Generation != v.Generation {
			states[i] += fmt.Sprintf("(generation %d)", n.Generation)
		}
	}
	health := outOf(healthy, len(v.Nodes), Warn)
	if healthy == 0 {
		health.Tone = Bad
	}
	owned := Cell{Text: "-"}
	if !v.OwnedSince.IsZero() {
		owned = age(v.OwnedSince, now)
	}
	conflict := text(v.Conflict)
	if v.Conflict != "" {
		conflict.Tone = Bad
	}
	return []Cell{
		text(v.Address.String()), text(v.Pool), words(v.Services), owner, owned, text(strconv.FormatUint(v.Generation, 10)),
		text(strings.Join(v.Announce, ",")), health, conflict, age(v.Since, now), text(strings.Join(states, " ")),
	}
}

// meanings are the reasons of ruleset.Reasons for people.
var meanings = map[string]string{
	"no-endpoint":       "the Service has no endpoint that may be used; refused",
	"no-local-endpoint": "the traffic policy is Local and this node has no endpoint; dropped",
	"closed-port":       "the address is a Service's, the port is none of its ports; refused",
	"source-range":      "the source is not in spec.loadBalancerSourceRanges; dropped",
	"unallocated":       "no Service has the address, which is in a ServiceCIDR; dropped",
	"endpoint-gone":     "the connection's endpoint is gone, and its Service has such reset; refused",
	"spoofed":           "a pod sent from an address that is not its own; dropped",
	"invalid":           "the packet fits no connection; dropped",
}

// A Drop is a reason on a node.
type Drop struct {
	Node string `json:"node"`
	inspect.DropAnswer
}

// Drops lists the answers of all nodes, without those that never happened unless all is set.
func Drops(answers []From[[]inspect.DropAnswer], all bool) []Item {
	var out []*Drop
	for _, from := range answers {
		for _, a := range from.Answer {
			if a.Packets > 0 || all {
				out = append(out, &Drop{from.Node, a})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *Drop) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Reason, b.Reason))
	})
	return items(out)
}

func (d *Drop) place() (string, string) { return "", d.Reason }

func (d *Drop) cells(time.Time) []Cell {
	return []Cell{
		text(d.Node), text(d.Reason), text(strconv.FormatUint(d.Packets, 10)), text(strconv.FormatUint(d.Bytes, 10)), text(meanings[d.Reason]),
	}
}

// A Node is one with what it says of itself and the others of it.
type Node struct {
	inspect.NodeAnswer
	Self bool `json:"-"`
	// Processes are those that answer.
	Processes []inspect.Identity `json:"processes"`
	// HeardBy counts the other nodes to which its heartbeats come, Others those that were asked.
	HeardBy int `json:"heardBy"`
	Others  int `json:"others"`
}

// Nodes merges what all nodes say of each other with the processes that answer.
func Nodes(answers []From[[]inspect.NodeAnswer], processes []inspect.Identity) []Item {
	merged := map[string]*Node{}
	get := func(name string) *Node {
		if merged[name] == nil {
			merged[name] = &Node{NodeAnswer: inspect.NodeAnswer{Name: name}}
		}
		return merged[name]
	}
	for _, from := range answers {
		for _, a := range from.Answer {
			n := get(a.Name)
			if a.Self || len(n.Addresses) == 0 {
				n.NodeAnswer = a
			}
			if a.Name == from.Node {
				continue
			}
			n.Others++
			if a.Heard {
				n.HeardBy++
			}
		}
	}
	for _, p := range processes {
		if p.Node != "" {
			n := get(p.Node)
			n.Processes = append(n.Processes, p)
		}
	}
	return items(sortedBy(merged, cmp.Compare[string]))
}

func (n *Node) place() (string, string) { return "", n.Name }

func (n *Node) cells(now time.Time) []Cell {
	var names, versions, sources []string
	var started, snapshot time.Time
	for _, p := range n.Processes {
		names = append(names, p.Component)
		versions = append(versions, p.Version)
		sources = append(sources, p.Source)
		if p.Started.After(started) {
			started = p.Started
		}
		if snapshot.IsZero() || p.Snapshot.Before(snapshot) {
			snapshot = p.Snapshot
		}
	}
	slices.Sort(versions)
	version := words(slices.Compact(versions))
	if strings.Contains(version.Text, ",") {
		version.Tone = Warn // in the middle of an upgrade
	}
	status := Cell{"ready", Good}
	switch {
	case !slices.Contains(names, "node"):
		status = Cell{"no answer", Bad}
	case n.NotReady != "":
		status = Cell{n.NotReady, Bad}
	}
	heard := Cell{Text: "-"}
	if n.Others > 0 {
		heard = outOf(n.HeardBy, n.Others, Bad)
	}
	mtu := Cell{Text: "-"}
	if n.PodMTU > 0 {
		mtu.Text = strconv.Itoa(n.PodMTU)
	}
	slices.Sort(sources)
	return []Cell{
		text(n.Name), status, list(n.Addresses), list(n.PodCIDRs), words(names), heard, list(n.VIPs), age(started, now),
		version, text(strings.Join(slices.Compact(sources), ",")), age(snapshot, now), mtu, text(n.Kernel),
	}
}
