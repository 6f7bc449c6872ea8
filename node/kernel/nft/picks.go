package nft

import (
	"cmp"
	"maps"
	"slices"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// maxIdle is how many chains to which nothing leads stay: those that something led to last. An endpoint that comes and goes, of the only
// Service with so many, would else have a chain made and deleted each time. Twice as many make a sweep, so that few changes do.
const maxIdle = 32

// picks are the chains of picks in the kernel, and how many elements lead to each.
type picks struct {
	leads map[string]int
	idle  map[string]int // those with no leads, and when they lost the last one, as a number that grows
	last  int
}

// newPicks counts what leads to chains, by the elements that are in the kernel.
func newPicks(chains map[string]bool, contents nfnetlink.Contents, sets map[string]ruleset.Set) picks {
	p := picks{leads: make(map[string]int, len(chains)), idle: map[string]int{}}
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		p.add(name)
	}
	for e, value := range contents {
		if _, is := p.leads[value]; is && sets[e.Set].Words != nil {
			p.lead(value)
		}
	}
	return p
}

func (p *picks) has(name string) bool {
	_, there := p.leads[name]
	return there
}

// add notes a chain that was made.
func (p *picks) add(name string) {
	p.leads[name] = 0
	p.rest(name)
}

func (p *picks) rest(name string) {
	p.last++
	p.idle[name] = p.last
}

func (p *picks) lead(name string) {
	p.leads[name]++
	delete(p.idle, name)
}

// note takes note of a change of an element that leads somewhere.
func (p *picks) note(c change) {
	if c.remove && p.leads[c.old] > 0 {
		if p.leads[c.old]--; p.leads[c.old] == 0 {
			p.rest(c.old)
		}
	}
	if c.insert && p.has(c.new) {
		p.lead(c.new)
	}
}

// surplus returns the chains to delete, none if they are not worth a transaction. They are forgotten: one that cannot be deleted
// is found again when the table is read.
func (p *picks) surplus() []string {
	if len(p.idle) <= 2*maxIdle {
		return nil
	}
	names := slices.SortedFunc(maps.Keys(p.idle), func(a, b string) int { return cmp.Compare(p.idle[a], p.idle[b]) })
	names = names[:len(names)-maxIdle]
	for _, name := range names {
		delete(p.idle, name)
	}
	return names
}

// drop forgets chains that were deleted.
func (p *picks) drop(names []string) {
	for _, name := range names {
		delete(p.leads, name)
	}
}
