package lb

import (
	"cmp"
	"fmt"
	"strings"
)

// String is one line per object, for people.
func (s State) String() string {
	var b strings.Builder
	for _, p := range s.Pools {
		fmt.Fprintf(&b, "pool %s: %d of %d addresses claimed\n", p.Pool, p.Status.Claimed, p.Status.Addresses)
	}
	for _, c := range s.Claims {
		fmt.Fprintf(&b, "claim %s: %s from %s for", c.Name, c.Spec.Address, c.Spec.Pool)
		for _, ref := range c.Spec.Services {
			fmt.Fprintf(&b, " %s/%s", ref.Namespace, ref.Name)
		}
		if len(c.Spec.Announce) > 0 {
			fmt.Fprintf(&b, " by %s", strings.Join(c.Spec.Announce, ","))
		}
		b.WriteByte('\n')
	}
	for _, st := range s.Services {
		fmt.Fprintf(&b, "service %s:", st.Service)
		for _, i := range st.Ingress {
			fmt.Fprintf(&b, " %s", cmp.Or(i.IP, i.Hostname))
			if i.IPMode != nil {
				fmt.Fprintf(&b, " (%s)", *i.IPMode)
			}
		}
		if st.Finalizer {
			b.WriteString(" finalizer")
		}
		if st.Yielded {
			b.WriteString(" yielded")
		}
		b.WriteByte('\n')
	}
	for _, st := range s.Ingresses {
		fmt.Fprintf(&b, "ingress %s:", st.Ingress)
		for _, a := range st.Addresses {
			fmt.Fprintf(&b, " %s", a.IP)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
