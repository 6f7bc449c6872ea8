package nft

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Dropper is a chain of somebody else that drops or refuses packets: by a rule, or by its policy.
type Dropper struct {
	Family string // as nft writes it: "ip", "inet"
	Table  string
	Chain  string
	// Hooks are where the kernel enters it: its own, or for one that others jump to those of all base chains of its table.
	Hooks []string
}

// Droppers lists them in the calling thread's network namespace, in the kernel's order. Which packets their rules match is
// not looked at; verdicts in maps are not seen.
func Droppers() ([]Dropper, error) {
	foreign, err := ForeignChains()
	if err != nil || len(foreign) == 0 {
		return nil, err
	}
	c, err := dial(0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	request := message(unix.NFT_MSG_GETRULE, netlink.Dump, nil)
	request.Data = generic(unix.NFPROTO_UNSPEC, 0)
	messages, err := c.Execute(request)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	type place struct{ family, table, chain string }
	dropping := map[place]bool{}
	for _, m := range messages {
		if len(m.Data) < 4 {
			continue
		}
		p, drops := place{family: familyNames[m.Data[0]]}, false
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				p.table = zeroEnded(data)
			case unix.NFTA_RULE_CHAIN:
				p.chain = zeroEnded(data)
			case unix.NFTA_RULE_EXPRESSIONS:
				each(data, func(_ uint16, expr []byte) { drops = drops || dropsPacket(expr) })
			}
		})
		if drops {
			dropping[p] = true
		}
	}
	var out []Dropper
	for _, f := range foreign {
		if !f.Drop && !dropping[place{f.Family, f.Table, f.Name}] {
			continue
		}
		d := Dropper{Family: f.Family, Table: f.Table, Chain: f.Name}
		for _, base := range foreign {
			same := base.Family == f.Family && base.Table == f.Table
			if same && base.Hook != "" && (f.Hook == "" || base.Name == f.Name) && !slices.Contains(d.Hooks, base.Hook) {
				d.Hooks = append(d.Hooks, base.Hook)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// dropsPacket says whether an expression of a rule ends the packet: the verdict drop, or reject in nft's form or in that
// of iptables.
func dropsPacket(expression []byte) bool {
	name, drops := "", false
	each(expression, func(typ uint16, data []byte) {
		switch {
		case typ == unix.NFTA_EXPR_NAME:
			name = zeroEnded(data)
			drops = name == "reject"
		case typ != unix.NFTA_EXPR_DATA:
		case name == "target":
			each(data, func(typ uint16, data []byte) {
				target := zeroEnded(data)
				drops = drops || typ == unix.NFTA_TARGET_NAME && (target == "REJECT" || target == "DROP")
			})
		case name == "immediate":
			drops = dropVerdict(data)
		}
	})
	return drops
}

// dropVerdict says whether the data of an immediate expression is the verdict drop.
func dropVerdict(immediate []byte) bool {
	drops := false
	each(immediate, func(typ uint16, data []byte) {
		if typ != unix.NFTA_IMMEDIATE_DATA {
			return
		}
		each(data, func(typ uint16, data []byte) {
			if typ != unix.NFTA_DATA_VERDICT {
				return
			}
			each(data, func(typ uint16, data []byte) {
				drops = drops || typ == unix.NFTA_VERDICT_CODE && len(data) == 4 && binary.BigEndian.Uint32(data) == 0 // NF_DROP
			})
		})
	})
	return drops
}
