package proxy

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/internal/model"
)

// String is "10.96.0.10 tcp 80", or "nodeport4 tcp 30080".
func (f Frontend) String() string {
	where := f.Addr.String()
	if f.NodePort() {
		where = "nodeport4"
		if f.Addr.Is6() {
			where = "nodeport6"
		}
	}
	return fmt.Sprintf("%s %s %d", where, f.Protocol, f.Port)
}

// WriteText writes s for people, one thing a line, sorted.
func (s State) WriteText(w io.Writer) {
	for _, f := range slices.SortedFunc(maps.Keys(s.Frontends), Frontend.Compare) {
		b := s.Frontends[f]
		fmt.Fprint(w, f, from(b.Sources))
		if pod, is := s.HostPorts[f]; is {
			fmt.Fprintf(w, " host port of %s", podName(pod))
		}
		if b.Affinity > 0 {
			fmt.Fprintf(w, " sticky for %v", b.Affinity)
		}
		if b.Choice != Random {
			fmt.Fprint(w, " ", b.Choice)
		}
		if b.Reset {
			fmt.Fprint(w, " reset when gone")
		}
		if len(b.Keep) > 0 {
			fmt.Fprintf(w, " keeping %s", join(b.Keep))
		}
		switch {
		case b.Empty():
			fmt.Fprintln(w, " refused")
		case b.Elsewhere:
			fmt.Fprintln(w, " dropped")
		case !b.Differ():
			fmt.Fprintf(w, " -> %s\n", join(b.Outside))
		case len(b.Outside) == 0:
			fmt.Fprintf(w, " outside dropped, inside -> %s\n", join(b.Inside))
		default:
			fmt.Fprintf(w, " outside -> %s, inside -> %s\n", join(b.Outside), join(b.Inside))
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.Addresses), netip.Addr.Compare) {
		fmt.Fprintf(w, "address %s\n", a)
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.Externals), netip.Addr.Compare) {
		fmt.Fprintf(w, "external address %s\n", a)
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.Others), netip.Addr.Compare) {
		fmt.Fprintf(w, "address of another proxy %s\n", a)
	}
	for _, p := range slices.SortedFunc(maps.Keys(s.ServiceRanges), comparePrefixes) {
		fmt.Fprintf(w, "service range %s\n", p)
	}
	if ranges := slices.SortedFunc(maps.Keys(s.NodePortRanges), comparePrefixes); !slices.Equal(ranges, everywhere()) {
		texts := []string{"no address"}
		for i, p := range ranges {
			texts = append(texts[:i], p.String())
		}
		fmt.Fprintf(w, "nodeports at %s\n", strings.Join(texts, ", "))
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.Pings), netip.Addr.Compare) {
		fmt.Fprintf(w, "ping %s answered by %s\n", a, s.Pings[a])
	}
	for _, p := range slices.SortedFunc(maps.Keys(s.PodRanges), comparePrefixes) {
		fmt.Fprintf(w, "pods %s\n", p)
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.Hairpins), netip.Addr.Compare) {
		fmt.Fprintf(w, "hairpin %s\n", a)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Overlays)) {
		fmt.Fprintf(w, "overlay %s\n", name)
	}
}

func podName(k model.Key) string {
	if k == (model.Key{}) {
		return "a pod"
	}
	return "pod " + k.String()
}

// from is " from 192.0.2.0/24", empty where everybody may come.
func from(sources []netip.Prefix) string {
	if sources == nil {
		return ""
	}
	texts := []string{"nobody"}
	for i, p := range sources {
		texts = append(texts[:i], p.String())
	}
	return " from " + strings.Join(texts, " ")
}

// String is what WriteText writes.
func (s State) String() string {
	var b strings.Builder
	s.WriteText(&b)
	return b.String()
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func join(endpoints []netip.AddrPort) string {
	texts := make([]string, len(endpoints))
	for i, e := range endpoints {
		texts[i] = e.String()
	}
	return strings.Join(texts, " ")
}
