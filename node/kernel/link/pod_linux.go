package link

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrNoNamespace says that the pod's network namespace cannot be opened.
var ErrNoNamespace = errors.New("no network namespace")

// A podSpace is the two namespaces that a pod's link joins.
type podSpace struct{ host, inside *space }

// openPod opens the calling thread's namespace and the one at path.
func openPod(path string) (*podSpace, error) {
	in, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (%w)", path, ErrNoNamespace, err)
	}
	out, err := netns.Get()
	if err != nil {
		_ = in.Close()
		return nil, fmt.Errorf("get network namespace: %w", err)
	}
	if in.Equal(out) {
		_, _ = in.Close(), out.Close()
		return nil, fmt.Errorf("open %s: %w: it is the node's own", path, ErrNoNamespace)
	}
	inside, err := openSpace(in)
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	host, err := openSpace(out)
	if err != nil {
		inside.close()
		return nil, err
	}
	return &podSpace{host: host, inside: inside}, nil
}

func (p *podSpace) close() {
	p.host.close()
	p.inside.close()
}

// AddPod joins the calling thread's namespace with the one at path. What is already there and right stays: it may
// be called again, also after it was killed half way.
func AddPod(ctx context.Context, path string, want Pod) error {
	p, err := openPod(path)
	if err != nil {
		return err
	}
	defer p.close()
	return p.ensure(ctx, want)
}

// CheckPod returns what AddPod would have to change, nil if nothing.
func CheckPod(ctx context.Context, path string, want Pod) ([]string, error) {
	p, err := openPod(path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	p.host.dry, p.inside.dry = true, true
	err = p.ensure(ctx, want)
	return append(p.host.pending, p.inside.pending...), err
}

// DeletePod deletes the node's end of a pod's link, and with it the pod's end and all routes. One that is not
// there is deleted.
func DeletePod(hostName string) error {
	s, err := currentSpace()
	if err != nil {
		return err
	}
	defer s.close()
	return s.deleteLink(hostName)
}

// RepairPods gives the node's ends of pods' links back what they lost: route, neighbours, sysctls. A pod whose link is
// not there is passed over, and so is its MTU, which the pod's end would have to follow. It goes on after an error and
// returns how many changes it made.
func RepairPods(ctx context.Context, pods []Pod) (int64, error) {
	s, err := currentSpace()
	if err != nil {
		return 0, err
	}
	defer s.close()
	var errs []error
	for _, p := range pods {
		if err := ctx.Err(); err != nil {
			return s.writes.Load(), errors.Join(append(errs, err)...)
		}
		l, err := s.link(p.HostName)
		if err != nil || l == nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, s.end(p.HostName, l.Attrs().Index, l.Attrs().MTU, p.Host))
	}
	return s.writes.Load(), errors.Join(errs...)
}

// LoopbackUp switches on the interface lo in the namespace at path.
func LoopbackUp(path string) error {
	p, err := openPod(path)
	if err != nil {
		return err
	}
	defer p.close()
	return p.inside.up("lo")
}

// PodLinks returns the names of the node's ends of all pod links in the calling thread's namespace.
func PodLinks() ([]string, error) {
	s, err := currentSpace()
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.podLinks()
}

func currentSpace() (*space, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("get network namespace: %w", err)
	}
	return openSpace(ns)
}

func (s *space) podLinks() ([]string, error) {
	links, err := dump("links", s.nl.LinkList)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		if l.Type() == "veth" && isPodLink(l.Attrs().Name) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

func isPodLink(name string) bool {
	digits, ok := strings.CutPrefix(name, PodPrefix)
	return ok && len(digits) == 11 && strings.Trim(digits, "0123456789abcdef") == ""
}

// ensure makes the pair, then what belongs to its ends: the pod's end last, so that it works from the moment
// that it is up.
func (p *podSpace) ensure(ctx context.Context, want Pod) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	host, inside, err := p.veth(want)
	if err != nil || host == 0 {
		return err
	}
	return errors.Join(
		p.host.end(want.HostName, host, want.MTU, want.Host),
		p.inside.up("lo"),
		p.inside.end(want.Name, inside, want.MTU, want.Inside),
	)
}

// end sets up one end of the pair.
func (s *space) end(name string, index, mtu int, want State) error {
	devices := indexes{name: index}
	errs := []error{s.sysctls(want.Sysctls, ""), s.mtu(name, mtu)}
	errs = append(errs, s.addresses(name, index, want.Addresses), s.up(name), s.neighbours(name, index, want.Neighbours))
	errs = append(errs, s.routes(want.Protocol, index, devices, want.Routes))
	return errors.Join(errs...)
}

func (s *space) mtu(name string, mtu int) error {
	l, err := s.link(name)
	if err != nil || l == nil || l.Attrs().MTU == mtu {
		return err
	}
	return s.write(fmt.Sprintf("set link %s mtu %d", name, mtu), func() error { return s.nl.LinkSetMTU(l, mtu) })
}

// veth returns the indexes of the two ends. A pair that leads elsewhere is made anew; 0 says that a dry run
// found none.
func (p *podSpace) veth(want Pod) (host, inside int, err error) {
	h, i, err := p.ends(want)
	if err != nil {
		return 0, 0, err
	}
	if h != nil && !pair(h, i, want) {
		if err := p.host.deleteLink(want.HostName); err != nil {
			return 0, 0, err
		}
		h = nil
	}
	if h == nil {
		if err := p.createVeth(want); err != nil || p.host.dry {
			return 0, 0, err
		}
		if h, i, err = p.ends(want); err != nil {
			return 0, 0, err
		}
	}
	if h == nil || i == nil {
		return 0, 0, fmt.Errorf("add link %s: it is gone again", want.HostName)
	}
	return h.Attrs().Index, i.Attrs().Index, nil
}

func (p *podSpace) ends(want Pod) (host, inside netlink.Link, err error) {
	if host, err = p.host.link(want.HostName); err != nil {
		return nil, nil, err
	}
	inside, err = p.inside.link(want.Name)
	return host, inside, err
}

// pair reports whether h and i are the two ends of one pair, with the right addresses.
func pair(h, i netlink.Link, want Pod) bool {
	return i != nil && h.Type() == "veth" && i.Type() == "veth" &&
		h.Attrs().ParentIndex == i.Attrs().Index && i.Attrs().ParentIndex == h.Attrs().Index &&
		mac(h.Attrs().HardwareAddr) == want.HostMAC && mac(i.Attrs().HardwareAddr) == want.MAC
}

// createVeth makes the pair in one step, its far end already in the pod: there is no moment with half of it.
func (p *podSpace) createVeth(want Pod) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = want.HostName, want.MTU, want.HostMAC[:]
	v := netlink.NewVeth(attrs)
	v.PeerName, v.PeerHardwareAddr, v.PeerMTU = want.Name, want.MAC[:], uint32(want.MTU)
	v.PeerNamespace = netlink.NsFd(int(p.inside.ns))
	return p.host.write(fmt.Sprintf("add link %s to %s in the pod", want.HostName, want.Name), func() error {
		err := p.host.nl.LinkAdd(v)
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("the pod has another %s: %w", want.Name, err)
		}
		return err
	})
}
