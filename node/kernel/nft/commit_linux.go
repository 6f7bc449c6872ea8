package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

const (
	// firstPart is how many changes a part has at first when it is looked for what the kernel refuses, unless there are few.
	firstPart = 512
	// splitInto is how many parts a part that was refused becomes: 512 take three rounds until each has one change.
	splitInto = 8
	// maxParts bounds how many parts a transaction has, and with it how many answers the kernel has to send. Where more would be
	// needed, parts are given up as they are.
	maxParts = 4096
	// maxHalved is how many transactions may be refused as a whole until all is given up: some 20 for each culprit among 100,000. Where there
	// are more of them, it is not the elements.
	maxHalved = 100
)

// A refusal is a change that the kernel did not take.
type refusal struct {
	change
	err error
}

func (r refusal) Error() string {
	return fmt.Sprintf("write element %s: %v", ruleset.ElementText(r.Element), r.err)
}

func (r refusal) Unwrap() error { return r.err }

// A batch is a transaction in the making.
type batch struct {
	messages []netlink.Message
	blames   []blame // of each message
	chains   []string
}

// A blame says what a message is about: a part, by its index, or a chain. Neither: the table itself.
type blame struct {
	part  int
	chain string
}

const noPart = -1

func (b *batch) add(of blame, messages ...netlink.Message) {
	b.messages = append(b.messages, messages...)
	for range messages {
		b.blames = append(b.blames, of)
	}
}

// parts divides changes that order has sorted into parts of one set, of at most size changes each; 0 for no bound.
func parts(changes []change, size int) (out [][]change) {
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].Set == changes[0].Set && n != size {
			n++
		}
		out, changes = append(out, changes[:n]), changes[n:]
	}
	return out
}

// draft makes a transaction of prefix, the chains that changes lead to and that are not there yet, and the changes: set by set, first
// what goes, then what comes.
func (t *Table) draft(prefix []netlink.Message, parts [][]change) batch {
	var b batch
	b.add(blame{part: noPart}, prefix...)
	added := map[string]bool{}
	for _, part := range parts {
		for _, c := range part {
			if !c.insert || !c.leads() || t.picks.has(c.new) || added[c.new] {
				continue
			}
			if pick := ruleset.NewPick(c.new); len(pick) > 0 {
				b.add(blame{noPart, c.new}, pick...)
				added[c.new], b.chains = true, append(b.chains, c.new)
			}
		}
	}
	for i, n := 0, 0; i < len(parts); i = n {
		for n = i; n < len(parts) && parts[n][0].Set == parts[i][0].Set; n++ {
			b.add(blame{part: n}, removals(t.sets[parts[n][0].Set].Set, parts[n])...)
		}
		for j := i; j < n; j++ {
			b.add(blame{part: j}, insertions(t.sets[parts[j][0].Set].Set, parts[j])...)
		}
	}
	return b
}

func removals(s nfnetlink.Set, changes []change) []netlink.Message {
	var elements []nfnetlink.Element
	for _, c := range changes {
		if c.remove {
			elements = append(elements, c.Element)
		}
	}
	return nfnetlink.DeleteElements(s, elements)
}

func insertions(s nfnetlink.Set, changes []change) []netlink.Message {
	var elements []nfnetlink.Element
	var values []string
	for _, c := range changes {
		if c.insert {
			elements, values = append(elements, c.Element), append(values, c.new)
		}
	}
	return nfnetlink.NewElements(s, elements, values)
}

// send sends a transaction of parts, and notes what is in the kernel then.
func (t *Table) send(b batch, parts [][]change) error {
	if t.interim {
		b.messages = nfnetlink.Retable(b.messages, nfnetlink.InterimName)
	}
	err := t.transact(b.messages)
	t.metrics.batches.Inc()
	if err != nil {
		return err
	}
	for _, name := range b.chains {
		t.picks.add(name)
	}
	for _, part := range parts {
		t.metrics.changes.Add(float64(len(part)))
		for _, c := range part {
			if c.leads() {
				t.picks.note(c)
			}
			if c.insert {
				t.contents[c.Element] = c.new
			} else {
				delete(t.contents, c.Element)
			}
		}
	}
	return nil
}

// commit writes prefix and all of changes, or nothing.
func (t *Table) commit(prefix []netlink.Message, changes []change) error {
	all := parts(changes, 0)
	if err := t.send(t.draft(prefix, all), all); err != nil {
		return fmt.Errorf("write %d elements: %w", len(changes), err)
	}
	return nil
}

// isolate writes prefix and those of changes that the kernel takes, in one transaction, and notes the others. A transaction that is refused
// changes nothing, and the kernel says which of its messages it did not take: their parts are divided, all at once, until each is one
// change. So it takes a few rounds, however many are refused. An error is something else, and nothing is written. Where the kernel refuses
// a transaction and none of its messages, halve goes on.
func (t *Table) isolate(prefix []netlink.Message, changes []change) error {
	tries := maxHalved
	return t.take(prefix, changes, &tries)
}

// take is isolate, with how many transactions may be refused as a whole.
func (t *Table) take(prefix []netlink.Message, changes []change, tries *int) error {
	size := firstPart
	if len(changes) <= splitInto*splitInto {
		size = 1
	}
	rest := parts(changes, size)
	for len(prefix) > 0 || len(rest) > 0 {
		b := t.draft(prefix, rest)
		err := t.send(b, rest)
		if err == nil {
			return nil
		}
		var refused *nfnetlink.BatchError
		if !errors.As(err, &refused) || errors.Is(err, unix.EPERM) {
			return fmt.Errorf("write %d elements: %w", len(changes), err)
		}
		if refused.Whole() && *tries > 0 {
			*tries--
			return t.halve(prefix, slices.Concat(rest...), refused, tries)
		}
		bad, chains, err := b.blamed(refused)
		if err == nil && len(prefix) == 0 && len(bad) == len(rest) && errors.Is(refused, unix.ENOENT) {
			err = refused // there is no such table
		}
		if err != nil {
			return fmt.Errorf("write %d elements: %w", len(changes), err)
		}
		var given []refusal
		if len(chains) > 0 {
			rest, given = without(rest, chains)
		} else {
			rest, given = divide(rest, bad)
		}
		t.give(given...)
	}
	return nil
}

// halve writes changes in two transactions, since the kernel did not take them in one and does not say why: what cannot be committed is
// found like that. What is refused alone is the culprit.
func (t *Table) halve(prefix []netlink.Message, changes []change, why *nfnetlink.BatchError, tries *int) error {
	if len(prefix) == 0 && len(changes) == 1 {
		t.give(refusal{changes[0], why.Failures[0].Err})
		return nil
	}
	half := len(changes) / 2
	if len(changes) == 0 {
		return fmt.Errorf("write the skeleton: %w", why)
	}
	if err := t.take(prefix, changes[:half], tries); err != nil {
		return err
	}
	return t.take(nil, changes[half:], tries)
}

// give notes what the kernel refused.
func (t *Table) give(refused ...refusal) {
	for _, r := range refused {
		t.refused[r.Element] = r
		t.news = true
	}
}

// blamed returns the parts and chains that the kernel did not take. An error is one of the table itself.
func (b batch) blamed(refused *nfnetlink.BatchError) (parts map[int]error, chains map[string]error, err error) {
	parts, chains = map[int]error{}, map[string]error{}
	for _, f := range refused.Failures {
		switch {
		case f.Message < 0 || f.Message >= len(b.blames):
			return nil, nil, f.Err
		case b.blames[f.Message].chain != "":
			chains[b.blames[f.Message].chain] = f.Err
		case b.blames[f.Message].part == noPart:
			return nil, nil, fmt.Errorf("write the skeleton: %w", f.Err)
		case parts[b.blames[f.Message].part] == nil:
			parts[b.blames[f.Message].part] = f.Err
		}
	}
	return parts, chains, nil
}

// without leaves out the changes that lead to chains which the kernel does not take: it would take a frontend's number without its chain,
// and packets would find nothing. What led elsewhere before goes on to do so.
func without(parts [][]change, chains map[string]error) (next [][]change, refused []refusal) {
	for _, part := range parts {
		var stay []change
		for _, c := range part {
			if err := chains[c.new]; err != nil && c.insert && c.leads() {
				refused = append(refused, refusal{c, err})
			} else {
				stay = append(stay, c)
			}
		}
		if len(stay) > 0 {
			next = append(next, stay)
		}
	}
	return next, refused
}

// divide divides the parts that are bad. Where all of them are single changes, or there would be too many parts, it leaves them out, and
// refused has their changes: before, one may be bad since another part was not done to its end.
func divide(parts [][]change, bad map[int]error) (next [][]change, refused []refusal) {
	on, count := false, len(parts)
	for i := range bad {
		if len(parts[i]) > 1 {
			on, count = true, count+splitInto-1
		}
	}
	on = on && count <= maxParts
	for i, part := range parts {
		err, is := bad[i]
		switch {
		case !is:
			next = append(next, part)
		case on:
			next = append(next, slices.Collect(slices.Chunk(part, (len(part)+splitInto-1)/splitInto))...)
		default:
			for _, c := range part {
				refused = append(refused, refusal{c, err})
			}
		}
	}
	return next, refused
}

// sweep deletes chains to which nothing leads any more.
func (t *Table) sweep() {
	names := t.picks.surplus()
	if len(names) == 0 {
		return
	}
	var b batch
	for _, name := range names {
		b.add(blame{noPart, name}, ruleset.DeletePick(name)...)
	}
	if err := t.send(b, nil); err != nil {
		t.log.Warn("chains of table inet hythe that are not in use any more cannot be deleted", "chains", len(names), "error", err)
		return
	}
	t.picks.drop(names)
}
