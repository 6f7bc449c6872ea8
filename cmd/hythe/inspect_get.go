package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/lb"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// getInspectors are the node's answers for hythe get, to which more are added.
func (n *node) getInspectors(more map[string]run.Inspector) map[string]run.Inspector {
	out := map[string]run.Inspector{
		"services": n.inspectServices,
		"vips":     n.inspectVIPs,
		"drops":    n.inspectDrops,
		"nodes":    n.inspectNodes,
		"problems": answerProblems(func() []model.Problem { return n.withConnection(n.problems()) }),
		"check":    n.inspectCheck,
		"facts":    n.inspectFacts,
		"table":    n.inspectTable,
	}
	for name, inspector := range more {
		out[name] = inspector
	}
	return out
}

// answerProblems is the answer to /inspect/problems.
func answerProblems(problems func() []model.Problem) run.Inspector {
	return func(context.Context, url.Values) (any, error) { return model.Reported(problems()), nil }
}

func (n *node) inspectServices(context.Context, url.Values) (any, error) {
	s, err := n.snapshot()
	if err != nil {
		return nil, err
	}
	if n.table == nil {
		return nil, fmt.Errorf("%w: this node leaves Services to another proxy (--without-proxy)", run.ErrNotFound)
	}
	wanted := n.wantedServices()
	if wanted == nil {
		return nil, errors.New("this node has not built its datapath yet")
	}
	read, err := readback.Frontends()
	if err != nil {
		return nil, err
	}
	return inspect.Services(s, wanted.Frontends, read), nil
}

func (n *node) inspectVIPs(context.Context, url.Values) (any, error) {
	s, err := n.snapshot()
	if err != nil {
		return nil, err
	}
	out := []inspect.VIPAnswer{}
	for _, claim := range s.Claims {
		addr, err := netip.ParseAddr(claim.Spec.Address)
		if err != nil {
			continue // a Problem says so
		}
		a := inspect.VIPAnswer{
			Address: addr, Pool: claim.Spec.Pool, Announce: claim.Spec.Announce, Since: claim.CreationTimestamp.Time, Services: []string{},
		}
		for _, ref := range claim.Spec.Services {
			a.Services = append(a.Services, ref.Namespace+"/"+ref.Name)
		}
		n.addOwner(&a, slices.Contains(claim.Spec.Announce, lb.AnnounceARP))
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b inspect.VIPAnswer) int { return a.Address.Compare(b.Address) })
	return out, nil
}

// addOwner adds what this node knows of who announces a VIP.
func (n *node) addOwner(a *inspect.VIPAnswer, announced bool) {
	switch {
	case !announced:
		a.State = "not announced"
		return
	case n.speaker == nil:
		a.State = "without" // --without-lb, or no heartbeat key
		return
	}
	view := n.speaker.Inspect(a.Address)
	a.Watched, a.Owned, a.Generation = view.Claimed, view.Owned, view.Generation
	a.Local, a.Healthy, a.Conflict = view.Local, view.Healthy, view.Problem
	a.OwnedSince = view.OwnedSince
	switch {
	case view.Owned:
		a.State, a.Owner = "owned", n.name
	case view.Blocked:
		a.State = "blocked"
	case view.Asking:
		a.State = "asking"
	case view.Listening:
		a.State = "listening"
	default:
		a.State = "standby"
	}
	best := uint64(0)
	for _, p := range view.Peers {
		if p.Alive && p.Said.Owned && p.Said.Generation > best && (!view.Owned || p.Said.Generation > view.Generation) {
			a.Owner, best = p.Node, p.Said.Generation
		}
	}
}

func (n *node) inspectDrops(context.Context, url.Values) (any, error) {
	drops, err := readback.Drops()
	if err != nil {
		return nil, err
	}
	out := make([]inspect.DropAnswer, 0, len(drops))
	for _, d := range drops {
		out = append(out, inspect.DropAnswer{Reason: d.Reason, Packets: d.Packets, Bytes: d.Bytes})
	}
	return out, nil
}

func (n *node) inspectNodes(context.Context, url.Values) (any, error) {
	s, err := n.snapshot()
	if err != nil {
		return nil, err
	}
	out := make([]inspect.NodeAnswer, 0, len(s.Nodes))
	for _, other := range s.Nodes {
		a := inspect.NodeAnswer{Name: other.Name, Addresses: other.Addresses, PodCIDRs: other.PodCIDRs}
		if other.Name == n.name {
			n.addSelf(&a)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b inspect.NodeAnswer) int { return strings.Compare(a.Name, b.Name) })
	if n.speaker == nil {
		return out, nil
	}
	for _, p := range n.speaker.Inspect(netip.Addr{}).Peers {
		for i := range out {
			if out[i].Name == p.Node {
				out[i].Heard, out[i].Held = p.Alive, p.Held
			}
		}
	}
	return out, nil
}

func (n *node) addSelf(a *inspect.NodeAnswer) {
	a.Self, a.VIPs = true, n.owned()
	if err := n.ready(); err != nil {
		a.NotReady = err.Error()
	}
	n.mu.Lock()
	if n.installed != nil {
		a.PodMTU = n.installed.MTU
	}
	n.mu.Unlock()
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		a.Kernel = unix.ByteSliceToString(name.Release[:])
	}
}
