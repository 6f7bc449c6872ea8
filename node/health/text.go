package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// String is for people and tests, one thing a line, sorted.
func (s State) String() string {
	var b strings.Builder
	for _, port := range slices.Sorted(maps.Keys(s.Services)) {
		svc := s.Services[port]
		fmt.Fprintf(&b, "%d Service %s: %d IPv4, %d IPv6 endpoints here\n", port, svc.Key, svc.count(4), svc.count(6))
	}
	if !s.Eligible {
		fmt.Fprintln(&b, "this node is about to go")
	}
	return b.String()
}
