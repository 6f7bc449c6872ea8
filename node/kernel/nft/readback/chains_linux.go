package readback

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// ForeignChains lists the chains of all other tables in the calling thread's network namespace, in the kernel's order.
func ForeignChains() ([]nfnetlink.KernelChain, error) {
	c, err := nfnetlink.Dial(0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	chains, err := c.Chains()
	if err != nil {
		return nil, err
	}
	ours := func(k nfnetlink.KernelChain) bool { return k.Family == "inet" && k.Table == nfnetlink.TableName }
	return slices.DeleteFunc(chains, ours), nil
}

// WriteTable writes what the kernel holds of the table, for people: the rules by their comments, and all elements.
func WriteTable(w io.Writer) error {
	c, err := nfnetlink.Dial(0)
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := c.Table()
	if err != nil {
		return err
	}
	if !f.Exists {
		_, err := fmt.Fprintf(w, "there is no table inet %s\n", nfnetlink.TableName)
		return err
	}
	fmt.Fprintf(w, "table inet %s, flags %#x, owner %d, %q\n", nfnetlink.TableName, f.Flags, f.Owner, f.Comment)
	rules, err := c.Rules()
	if err != nil {
		return err
	}
	for _, chain := range slices.Sorted(maps.Keys(rules)) {
		fmt.Fprintf(w, "chain %s\n", chain)
		for _, r := range rules[chain] {
			fmt.Fprintf(w, "  %s\n", r.Comment)
		}
	}
	have := nfnetlink.Contents{}
	for _, s := range ruleset.Sets() {
		if err := c.Elements(s.Set, have); err != nil {
			return err
		}
	}
	var elements []string
	for e, value := range have {
		elements = append(elements, ruleset.ElementText(e)+ruleset.ValueText(e.Set, value))
	}
	slices.Sort(elements)
	for _, e := range elements {
		fmt.Fprintln(w, e)
	}
	return nil
}
