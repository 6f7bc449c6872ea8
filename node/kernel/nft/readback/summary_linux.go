package readback

import (
	"strings"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// Table counts what the kernel holds, in the calling thread's network namespace. It lists all elements, which takes
// some 10 ms for each 1,000 Services.
func Table() (Summary, error) {
	c, err := nfnetlink.Dial(0)
	if err != nil {
		return Summary{}, err
	}
	defer c.Close()
	f, err := c.Table()
	s := Summary{Present: f.Exists, Owned: f.Flags&nfnetlink.TableOwner != 0, Owner: f.Owner, Persist: f.Flags&nfnetlink.TablePersist != 0,
		Skeleton: strings.TrimPrefix(f.Comment, ruleset.Comment("")), Current: f.Comment == ruleset.Comment(ruleset.Version())}
	if err != nil || !f.Exists {
		return s, err
	}
	rules, err := c.Rules()
	if err != nil {
		return s, err
	}
	drops, err := c.Dropping()
	if err != nil {
		return s, err
	}
	if !drops {
		var picks map[string]bool
		picks, s.Whole = ruleset.Recognise(rules)
		s.Chains = len(picks)
		if s.Whole {
			if s.Whole, err = Led(c, picks); err != nil {
				return s, err
			}
		}
	}
	s.Elements = map[string]int{}
	for _, set := range ruleset.Sets() {
		n, err := c.Count(set.Set)
		if err != nil {
			return s, err
		}
		s.Elements[set.Name] = n
	}
	return s, nil
}

// Led says whether what leads to chains of picks in the kernel leads to all of these, and to nothing else.
func Led(c nfnetlink.Conn, picks map[string]bool) (bool, error) {
	leads := nfnetlink.Contents{}
	for _, s := range ruleset.LeadSets() {
		if err := c.Elements(s, leads); err != nil {
			return false, err
		}
	}
	return ruleset.Led(picks, leads), nil
}
