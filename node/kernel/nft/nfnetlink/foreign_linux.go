package nfnetlink

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A ChainName is where a chain is. Family is nft's word for it.
type ChainName struct{ Family, Table, Name string }

// DroppingChains are the chains of all tables of the network namespace that have a rule which drops or refuses packets.
// Verdicts in maps are not seen.
func (c Conn) DroppingChains() (map[ChainName]bool, error) {
	request := message(unix.NFT_MSG_GETRULE, netlink.Dump, nil)
	request.Data = generic(unix.NFPROTO_UNSPEC, 0)
	messages, err := c.Execute(request)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	dropping := map[ChainName]bool{}
	for _, m := range messages {
		if len(m.Data) < 4 {
			continue
		}
		p, drops := ChainName{Family: FamilyName(m.Data[0])}, false
		each(m.Data[4:], func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				p.Table = zeroEnded(data)
			case unix.NFTA_RULE_CHAIN:
				p.Name = zeroEnded(data)
			case unix.NFTA_RULE_EXPRESSIONS:
				each(data, func(_ uint16, expr []byte) { drops = drops || dropsPacket(expr) })
			}
		})
		if drops {
			dropping[p] = true
		}
	}
	return dropping, nil
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
