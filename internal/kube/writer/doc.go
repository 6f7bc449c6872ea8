// Package writer puts into the API what Hythe has to say.
//
//	controller: Lead ── this process holds the Lease ──> Set(Snapshot, Desired) ──> AddressClaims, then status, then Events
//	gateway, node: WriteReport ──> the Report of one component on one node
//
// Only differences are written, and only what is Hythe's own. An address is given by the creation of an AddressClaim
// that is named by it, so that two leaders at a time cannot give it twice.
package writer
