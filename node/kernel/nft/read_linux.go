package nft

import (
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// found is what the kernel holds of the table.
type found struct {
	nfnetlink.KernelTable
	whole    bool // the skeleton is there, and is ours
	picks    map[string]bool
	contents nfnetlink.Contents
}

// read looks at all of the table.
func read(c nfnetlink.Conn) (found, error) {
	table, err := c.Table()
	f := found{KernelTable: table, picks: map[string]bool{}, contents: nfnetlink.Contents{}}
	if err != nil || !f.Exists || f.Comment != ruleset.Comment(ruleset.Version()) {
		return f, err
	}
	rules, err := c.Rules()
	if err != nil {
		return found{}, err
	}
	drops, err := c.Dropping()
	if err != nil {
		return found{}, err
	}
	if drops {
		return f, nil
	}
	if f.picks, f.whole = ruleset.Recognise(rules); !f.whole {
		return f, nil
	}
	if f.whole, err = readback.Led(c, f.picks); err != nil || !f.whole {
		return f, err
	}
	for _, s := range ruleset.Sets() {
		if s.Dynamic {
			continue
		}
		if err := c.Elements(s.Set, f.contents); err != nil {
			return found{}, err
		}
	}
	f.whole = chained(f.picks, f.contents)
	return f, nil
}

// chained says whether the chains are there to which frontends lead: the kernel does not know that they do.
func chained(chains map[string]bool, contents nfnetlink.Contents) bool {
	leads := map[string]bool{}
	for _, s := range ruleset.Sets() {
		leads[s.Name] = s.Words != nil
	}
	for e, chain := range contents {
		if leads[e.Set] && chain != ruleset.NoLocalEndpoint && !chains[chain] {
			return false
		}
	}
	return true
}
