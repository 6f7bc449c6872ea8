package trace

import "hythe.dev/hythe/internal/trace/asked"

// A Verdict says what becomes of what was asked for.
type Verdict string

const (
	// Arrives: each hop carries it on, though some may differ from what Build wants.
	Arrives Verdict = "arrives"
	// Partly: it depends on which of several ways is taken.
	Partly Verdict = "arrives in part"
	// Fails: it ends at a hop.
	Fails Verdict = "does not arrive"
	// Perhaps: each hop carries it on, and rules of somebody else, which are not understood, may drop it.
	Perhaps Verdict = "may arrive"
	// Unclear: a hop that it needs could not be read, and no other one is broken.
	Unclear Verdict = "cannot be told"
)

// A Trace is the answer to a Question.
type Trace struct {
	Question asked.Question `json:"question"`
	// From says where the packets come from, in words.
	From string `json:"from"`
	// Hops are in the order of the road.
	Hops    []asked.Hop `json:"hops"`
	Verdict Verdict     `json:"verdict"`
	// Summary says where it ends, or how it is answered.
	Summary string `json:"summary"`
	// Remedy is what to do, empty if nothing.
	Remedy string `json:"remedy,omitempty"`
}
