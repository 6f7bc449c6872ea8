// Package show makes of the answers of all processes what hythe get prints.
//
//	answers of each process ── Merge… ──> one Item for each object ── Write ──> table, names, JSON or YAML
//	                                      with who differs
//
// An object that several processes have is shown once: what they agree on, and in how many of them it is as it should be.
package show
