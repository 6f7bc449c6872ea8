package nft

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A ForeignChain is a chain of a table that is not ours. Those of iptables-nft are among them.
type ForeignChain struct {
	Family string // as nft writes it: "ip", "inet"
	Table  string
	Name   string
	// Hook is where the kernel enters a base chain, "forward" for example; empty for other chains.
	Hook string
	// Drop says that a base chain drops what none of its rules decides.
	Drop bool
}

// familyNames and hookNames are nft's words for NFPROTO_* and NF_INET_*.
var (
	familyNames = map[byte]string{
		unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_ARP: "arp", unix.NFPROTO_NETDEV: "netdev",
		unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_IPV6: "ip6",
	}
	hookNames = []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
)

// ForeignChains lists the chains of all other tables in the calling thread's network namespace, in the kernel's order.
func ForeignChains() ([]ForeignChain, error) {
	c, err := dial(0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	request := message(unix.NFT_MSG_GETCHAIN, netlink.Dump, nil)
	request.Data = generic(unix.NFPROTO_UNSPEC, 0)
	messages, err := c.Execute(request)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []ForeignChain
	for _, m := range messages {
		if len(m.Data) < 4 {
			continue
		}
		f := ForeignChain{Family: familyNames[m.Data[0]]}
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_CHAIN_TABLE:
				f.Table = zeroEnded(data)
			case unix.NFTA_CHAIN_NAME:
				f.Name = zeroEnded(data)
			case unix.NFTA_CHAIN_HOOK:
				f.Hook = hookName(data)
			case unix.NFTA_CHAIN_POLICY:
				f.Drop = len(data) == 4 && binary.BigEndian.Uint32(data) == 0 // NF_DROP
			}
		})
		if f.Family != "inet" || f.Table != tableName {
			out = append(out, f)
		}
	}
	return out, nil
}

func hookName(nested []byte) string {
	name := ""
	each(nested, func(typ uint16, data []byte) {
		if typ == unix.NFTA_HOOK_HOOKNUM && len(data) == 4 {
			if n := binary.BigEndian.Uint32(data); int(n) < len(hookNames) {
				name = hookNames[n]
			}
		}
	})
	return name
}

// WriteTable writes what the kernel holds of the table, for people: the rules by their comments, and all elements.
func WriteTable(w io.Writer) error {
	c, err := dial(0)
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := c.readTable()
	if err != nil {
		return err
	}
	if !f.exists {
		_, err := fmt.Fprintf(w, "there is no table inet %s\n", tableName)
		return err
	}
	fmt.Fprintf(w, "table inet %s, flags %#x, owner %d, %q\n", tableName, f.flags, f.owner, f.says)
	rules, err := c.readRules()
	if err != nil {
		return err
	}
	for _, chain := range slices.Sorted(maps.Keys(rules)) {
		fmt.Fprintf(w, "chain %s\n", chain)
		for _, r := range rules[chain] {
			fmt.Fprintf(w, "  %s\n", r.comment)
		}
	}
	have := contents{}
	for _, s := range sets() {
		if err := c.readElements(s, have); err != nil {
			return err
		}
	}
	var elements []string
	for e, value := range have {
		elements = append(elements, e.String()+valueText(e.set, value))
	}
	slices.Sort(elements)
	for _, e := range elements {
		fmt.Fprintln(w, e)
	}
	return nil
}

// valueText is " : value" of a map's element.
func valueText(name, value string) string {
	for _, s := range sets() {
		if s.name != name {
			continue
		}
		if s.verdicts {
			return " : " + value
		}
		if s.data != nil {
			return " : " + s.data.text(value)
		}
	}
	return ""
}
