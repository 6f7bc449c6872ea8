package lb

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// A Range is all addresses from First to Last, both included, of one family.
type Range struct {
	First, Last netip.Addr
}

// ParseRange reads an entry of AddressPoolSpec.Addresses: "203.0.113.10-203.0.113.19", "203.0.113.32/28" or
// "203.0.113.7". Addresses that can never be a VIP (loopback, link-local, multicast, unspecified) are errors.
func ParseRange(s string) (Range, error) {
	s = strings.TrimSpace(s)
	var r Range
	switch first, last, isRange := strings.Cut(s, "-"); {
	case isRange:
		var err1, err2 error
		r.First, err1 = parseAddr(first)
		r.Last, err2 = parseAddr(last)
		if err := errors.Join(err1, err2); err != nil {
			return Range{}, fmt.Errorf("parse range %q: write FIRST-LAST", s)
		}
	case strings.Contains(s, "/"):
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return Range{}, fmt.Errorf("parse CIDR %q: write ADDRESS/BITS", s)
		}
		r = prefixRange(p)
	default:
		a, err := parseAddr(s)
		if err != nil {
			return Range{}, fmt.Errorf("parse address %q: write an address, FIRST-LAST or ADDRESS/BITS", s)
		}
		r = Range{a, a}
	}
	if r.First.BitLen() != r.Last.BitLen() {
		return Range{}, fmt.Errorf("parse range %q: both ends must be of one family", s)
	}
	if r.Last.Less(r.First) {
		return Range{}, fmt.Errorf("parse range %q: the end comes before the start", s)
	}
	for _, p := range neverVIP {
		if r.overlaps(prefixRange(netip.MustParsePrefix(p))) {
			return Range{}, fmt.Errorf("parse range %q: addresses of %s cannot be used", s, p)
		}
	}
	return r, nil
}

// neverVIP are loopback, link-local, multicast, reserved and unspecified addresses (RFC 6890).
var neverVIP = [...]string{
	"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8",
}

// parseAddr reads an address without a zone; IPv4-mapped ones become IPv4.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return netip.Addr{}, err
	}
	if a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %q has a zone", s)
	}
	return a.Unmap(), nil
}

func prefixRange(p netip.Prefix) Range {
	p = p.Masked()
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return Range{p.Addr(), last}
}

func (r Range) contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && !a.Less(r.First) && !r.Last.Less(a)
}

func (r Range) overlaps(o Range) bool {
	return r.First.BitLen() == o.First.BitLen() && !r.Last.Less(o.First) && !o.Last.Less(r.First)
}

// size is the number of addresses, at most math.MaxInt64.
func (r Range) size() int64 {
	first, last := r.First.As16(), r.Last.As16()
	lo, borrow := bits.Sub64(binary.BigEndian.Uint64(last[8:]), binary.BigEndian.Uint64(first[8:]), 0)
	hi, _ := bits.Sub64(binary.BigEndian.Uint64(last[:8]), binary.BigEndian.Uint64(first[:8]), borrow)
	if hi > 0 || lo >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo) + 1
}

func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// A pool is an AddressPool with its entries read. It holds ranges and used addresses, never a list of free ones:
// a /8 costs no more than a single address.
type pool struct {
	name     string
	auto     bool
	priority int32
	ranges   []Range // sorted, disjoint
	cursor   map[bool]*cursor
}

// A cursor walks through the free addresses of one family of a pool.
type cursor struct {
	next    netip.Addr // where to go on; the zero Addr at the end of the ranges
	wrapped bool
}

func (p *pool) contains(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(p.ranges, a, func(r Range, a netip.Addr) int { return r.First.Compare(a) })
	return found || i > 0 && p.ranges[i-1].contains(a)
}

func (p *pool) size() int64 {
	var n int64
	for _, r := range p.ranges {
		if s := r.size(); s > math.MaxInt64-n {
			return math.MaxInt64
		} else {
			n += s
		}
	}
	return n
}

// start puts the cursor behind the highest used address, so that one that was just given back is used again as
// late as possible, and nothing but the claims must be remembered for it.
func (p *pool) start(used map[netip.Addr]model.ObjectRef) {
	p.cursor = map[bool]*cursor{false: {}, true: {}}
	for a, owner := range used {
		if c := p.cursor[a.Is6()]; owner.Kind == "Service" && p.contains(a) && c.next.Less(a) {
			c.next = a
		}
	}
	for is6, c := range p.cursor {
		if c.next.IsValid() {
			c.next = p.after(c.next)
		} else {
			c.next, c.wrapped = p.first(is6), true
		}
	}
}

// take returns a free address of the family. Each used address is stepped over at most twice in the life of the
// pool value, so the cost does not depend on the pool's size.
func (p *pool) take(is6 bool, used map[netip.Addr]model.ObjectRef) (netip.Addr, bool) {
	c := p.cursor[is6]
	for {
		if !c.next.IsValid() {
			if c.wrapped {
				return netip.Addr{}, false
			}
			c.next, c.wrapped = p.first(is6), true
			continue
		}
		a := c.next
		c.next = p.after(a)
		if _, taken := used[a]; !taken {
			return a, true
		}
	}
}

func (p *pool) first(is6 bool) netip.Addr {
	for _, r := range p.ranges {
		if r.First.Is6() == is6 {
			return r.First
		}
	}
	return netip.Addr{}
}

// after returns the address of the pool that follows a in its family, or the zero Addr.
func (p *pool) after(a netip.Addr) netip.Addr {
	i, found := slices.BinarySearchFunc(p.ranges, a, func(r Range, a netip.Addr) int { return r.First.Compare(a) })
	if !found {
		i--
	}
	if i >= 0 && a.Less(p.ranges[i].Last) {
		return a.Next()
	}
	if i+1 < len(p.ranges) && p.ranges[i+1].First.Is6() == a.Is6() {
		return p.ranges[i+1].First
	}
	return netip.Addr{}
}

// readPools reads all pools, the oldest first. An entry that overlaps an earlier one, a pod range, or the range of
// ClusterIPs as far as they are given out, is left out; the rest of its pool is used.
func readPools(s *model.Snapshot) ([]*pool, []model.Problem) {
	objects := slices.SortedFunc(maps.Values(s.Pools), func(a, b *v1alpha1.AddressPool) int {
		return cmp.Or(model.CompareAge(a.CreationTimestamp.Time, b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	taken, services := podRanges(s), clusterIPs(s)
	var pools []*pool
	var problems []model.Problem
	for _, o := range objects {
		ref := model.ObjectRef{Kind: "AddressPool", Name: o.Name}
		fault := model.Contain(ref, "It gives no addresses; those that it gave stay", func() {
			p, more := readPool(o, taken, services)
			pools, problems = append(pools, p), append(problems, more...)
		})
		problems = append(problems, fault...)
	}
	return pools, problems
}

// readPool reads one pool, and adds its entries to taken.
func readPool(o *v1alpha1.AddressPool, taken *namedRanges, services []netip.Addr) (*pool, []model.Problem) {
	var problems []model.Problem
	p := &pool{name: o.Name, auto: o.Spec.AutoAssign == nil || *o.Spec.AutoAssign, priority: o.Spec.Priority}
	ref := model.ObjectRef{Kind: "AddressPool", Name: o.Name}
	for _, entry := range o.Spec.Addresses {
		r, err := ParseRange(entry)
		if err != nil {
			problems = append(problems, model.Problemf(ref, ReasonInvalidAddresses,
				"The entry is not used: %v.", err))
			continue
		}
		if owner, ok := taken.overlapping(r); ok {
			problems = append(problems, model.Problemf(ref, ReasonOverlappingAddresses,
				"The entry %s is not used: it overlaps %s. Give each address to one pool only.", r, owner))
			continue
		}
		if a, ok := firstIn(r, services); ok {
			problems = append(problems, model.Problemf(ref, ReasonOverlappingAddresses,
				"The entry %s is not used: it holds the ClusterIP %s of a Service. Choose addresses outside of the cluster's Service range.", r, a))
			continue
		}
		taken.add(r, fmt.Sprintf("%s of AddressPool %s", r, o.Name))
		p.ranges = append(p.ranges, r)
	}
	slices.SortFunc(p.ranges, func(a, b Range) int { return a.First.Compare(b.First) })
	return p, problems
}

// A namedRanges is a list of ranges sorted by first address, disjoint but for the pod ranges.
type namedRanges []namedRange

type namedRange struct {
	Range
	name string
}

func podRanges(s *model.Snapshot) *namedRanges {
	t := &namedRanges{}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		_ = contain.Do(func() { // the overlay tells of it
			for _, p := range s.Nodes[name].PodCIDRs {
				r := prefixRange(p)
				if _, ok := t.overlapping(r); !ok {
					t.add(r, "the pod range of node "+name)
				}
			}
		})
	}
	return t
}

func (t *namedRanges) search(a netip.Addr) int {
	i, _ := slices.BinarySearchFunc(*t, a, func(r namedRange, a netip.Addr) int { return r.First.Compare(a) })
	return i
}

func (t *namedRanges) add(r Range, name string) {
	*t = slices.Insert(*t, t.search(r.First), namedRange{r, name})
}

// overlapping returns the name of the first range that overlaps r.
func (t *namedRanges) overlapping(r Range) (string, bool) {
	i := t.search(r.First)
	if i > 0 && (*t)[i-1].overlaps(r) {
		return (*t)[i-1].name, true
	}
	if i < len(*t) && (*t)[i].overlaps(r) {
		return (*t)[i].name, true
	}
	return "", false
}
