// Package stub is an API server of only as much as an agent of nodes reads: lists, watches (KEP-3157, WatchList, too) and
// single objects of a few kinds, over real HTTP, as protobuf or JSON. A real one is too slow to fill with 100,000
// Services for a benchmark, and would compete for the same processors.
//
//	Put, Delete ──> log of events of a kind ──> each watch, from its resourceVersion on
//	                └──> objects ──> lists
//
// What is sent is encoded before it is asked for, so that the time until an agent has it is the agent's. Selectors are not
// looked at. What agents write is taken and forgotten.
package stub
