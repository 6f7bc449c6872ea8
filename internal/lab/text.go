package lab

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes the status in tables, for people.
func (st Status) WriteText(w io.Writer) {
	fmt.Fprintf(w, "lab of %s (supervisor %d)\nCA %s\n\n", st.Manifests, st.PID, st.CA)
	table(w, "PROCESS\tPID\tREADY\tRESTARTS\tAGE\tNOTE", st.Processes, func(p ProcessStatus) string {
		note := p.Why
		if p.Held {
			note = "held down"
		}
		return fmt.Sprintf("%s\t%d\t%s\t%d\t%s\t%s", p.Name, p.PID, yes(p.Ready), p.Restarts, age(p.Since), note)
	})
	table(w, "POD\tNODE\tREADY\tADDRESS\tIMAGE\tNOTE", st.Pods, func(p PodStatus) string {
		note := p.Message
		if p.Terminating {
			note = "terminating"
		}
		return fmt.Sprintf("%s/%s\t%s\t%s\t%s\t%s\t%s", p.Namespace, p.Name, p.Node, yes(p.Ready), p.Address, strings.Join(p.Images, ","), note)
	})
	table(w, "VIP\tPOOL\tOWNER\tSERVICES", st.VIPs, func(v VIPStatus) string {
		owner := cmp.Or(strings.Join(v.Owners, ","), "nobody")
		return fmt.Sprintf("%s\t%s\t%s\t%s", v.Address, v.Pool, owner, strings.Join(v.Services, ","))
	})
	list(w, "Added to the manifests", st.Added)
	list(w, "Not added", st.Skipped)
	list(w, "Problems", st.Problems)
	list(w, "Waiting for", st.Waiting)
}

func table[T any](w io.Writer, head string, rows []T, row func(T) string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	for _, r := range rows {
		fmt.Fprintln(t, row(r))
	}
	_ = t.Flush()
	fmt.Fprintln(w)
}

func list(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "%s:\n", title)
	for _, line := range lines {
		fmt.Fprintf(w, "  %s\n", line)
	}
	fmt.Fprintln(w)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func age(since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return time.Since(since).Round(time.Second).String()
}
