// Package road goes along the road of a request as far as it is known, and asks what comes next.
//
//	Question ─┬─> Road: which address, entry node, endpoints? ──> ask the process there ──┐
//	Evidence <┴──────────────────────────────────────────────────────────────────────────┘
//
// Road is pure, and is also how package trace reads the Evidence. Ask puts the questions, Live sends a marked request.
package road
