package services

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A File is one case file, for one address family.
type File struct {
	Name  string // of the file, and the family: "clusterip/4"
	Steps []Step
}

// A Step is what is there at one time.
type Step struct {
	Objects string // YAML documents
	Asks    []Ask
}

// An Ask is a line of a table: packets that are sent, and what becomes of them.
type Ask struct {
	File string // with the family
	Step int    // from 1
	From string
	Port uint16 // source port, 0 for any
	Kind string // tcp, udp, http, ping, open or still
	To   netip.AddrPort
	// Path is asked for by HTTP.
	Path  string
	Want  Outcome
	Count int           // how often to ask at least; 0 is the default
	Pause time.Duration // between two asks
	// Decided are other outcomes, by program.
	Decided map[string]Decided
}

// Decided is an outcome that is not the wanted one, and the decision that it follows from.
type Decided struct {
	Outcome  Outcome
	Decision string
}

// For returns what a program should do.
func (a Ask) For(program string) Outcome {
	if d, ok := a.Decided[program]; ok {
		return d.Outcome
	}
	return a.Want
}

// String is the line of the table without its outcome.
func (a Ask) String() string {
	from := a.From
	if a.Port != 0 {
		from += ":" + itoa(a.Port)
	}
	to := a.To.String() + a.Path
	if a.Kind == "ping" {
		to = a.To.Addr().String()
	}
	return from + " " + a.Kind + " " + to
}

// An Outcome is what becomes of the packets of an Ask.
type Outcome struct {
	// One says that all packets got the same answer, which is one of Answers.
	One bool
	// Answers are sorted: "a=client", "refused", "dropped", "reply", "200 2", or an error's text.
	Answers []string
}

// String is the text that stands in a case file.
func (o Outcome) String() string {
	text := strings.Join(o.Answers, " ")
	if o.One {
		return "one " + text
	}
	return text
}

// Met says whether the answers that were seen are those that are wanted.
func (o Outcome) Met(seen []string) bool {
	if o.One {
		return len(seen) == 1 && slices.Contains(o.Answers, seen[0])
	}
	return slices.Equal(o.Answers, seen)
}

// Silent says whether the outcome is that nobody answers, for which one has to wait.
func (o Outcome) Silent() bool { return slices.Contains(o.Answers, Dropped) }

// Outcomes without an endpoint.
const (
	Refused = "refused"
	Dropped = "dropped"
	Reply   = "reply"
)

// Names of the programs.
const (
	Hythe     = "hythe"
	KubeProxy = "kube-proxy"
)

// A Result is what a program did.
type Result struct {
	Ask  Ask
	Seen map[string][]string // by program
}

// Met says whether a program did as it should.
func (r Result) Met(program string) bool { return r.Ask.For(program).Met(r.Seen[program]) }
