// Package nfnetlink speaks with nftables in the kernel: transactions, dumps and notifications of the table "inet hythe",
// by netlink (linux/netfilter/nfnetlink.h, nf_tables.h).
//
//	NewTable, NewSet, NewChain, NewElements ──> messages ── Batch ──> kernel     all of them, or none and the errno
//	Table, Rules, Elements, Get, Counters <── what the kernel has ── dump ──┤     again, if it changed meanwhile
//	Concerns <── what others than this socket changed ── Listen <───────────┘
//
// It knows how sets, rules and elements are written, and nothing of what this table's are for: that is ruleset. It
// writes no table but this one, and of others it reads only that they are there, and what they drop (Has, Chains,
// DroppingChains).
package nfnetlink
