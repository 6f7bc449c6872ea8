// Package readback reads what the kernel holds of the table "inet hythe", and not what an agent believes to have
// written. It needs no agent, and changes nothing.
//
//	                 ┌── Lookup: what becomes of one connection, by single elements
//	kernel ── dump ──┼── Frontends: all frontends, as proxy.Build's State should have them
//	                 ├── Table, WriteTable: who owns it, whether its rules are ours, how many elements
//	                 ├── Drops: what was refused or dropped, by reason
//	                 └── ForeignChains, Droppers: what others filter on the same node
//
// Lookup goes the way of the rules in ruleset, in their order: whoever changes the one changes the other. The tests of
// both are beside nft.Table, which puts into a kernel what is read here.
package readback
