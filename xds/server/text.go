package server

import (
	"fmt"
	"strings"
)

// String is the status as people read it.
func (s Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Envoys connected: %d, ready: %t, resources not acknowledged: %d, refused: %d\n",
		s.Streams, s.Ready, s.Outstanding, len(s.Refused))
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, "host %s\n", h)
	}
	for _, i := range s.Ingresses {
		fmt.Fprintf(&b, "ingress %s\n", i)
	}
	for _, r := range s.Refused {
		fmt.Fprintf(&b, "refused %s\n", r)
	}
	return b.String()
}

// String is one line.
func (r Refusal) String() string {
	return fmt.Sprintf("%s %s version %q: %s", r.Kind, r.Name, r.Version, r.Reason)
}
