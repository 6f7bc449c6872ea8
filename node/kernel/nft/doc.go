// Package nft holds the Service datapath in nftables, in the one table "inet hythe", by netlink. Nothing else of
// Hythe touches nftables, and this package touches no other table.
//
//	proxy.State ── Set ──> ruleset.Encode ── what differs from the mirror ──> nfnetlink.Batch ──> kernel
//	                                                 ^                                              │
//	                                              repair <── Run <── notifications of others <──────┤
//	                                                                                                │
//	                            readback: Lookup, Table, Frontends, Drops <── without the mirror ───┘
//
// There are four packages: ruleset is pure and says what the table consists of, nfnetlink speaks with the kernel,
// this one keeps the table as it should be, and readback says what the kernel really holds.
//
// A Table knows what it wrote, so that a change of one Service is one small transaction. It is also the guard of that:
// Run listens to nftables' own notifications, and writes again what somebody else changed or flushed. Where the kernel
// can (6.9), the table has an owner: nobody else can change it, a flush of the whole ruleset passes it by, and it stays
// when its owner ends.
//
// While a table of another version is replaced, the table "inet hythe-interim" serves with the same content. Where tables have no owner
// it may survive an agent that is killed just then, until the next one starts. An agent older than that table does not know it: who goes
// back to one after such a death runs "hythe node cleanup" of the newer version before, or "nft delete table inet hythe-interim".
package nft
