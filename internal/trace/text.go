package trace

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"hythe.dev/hythe/internal/trace/asked"
)

// marks of the states, and their colours (ECMA-48 SGR).
var marks = map[asked.State]struct{ mark, colour string }{
	asked.OK:      {"✓", "32"},
	asked.Differs: {"!", "33"},
	asked.Broken:  {"✗", "31"},
	asked.Unknown: {"?", "35"},
}

// WriteText writes the trace for people. now is when ages are counted from.
func (t Trace) WriteText(w io.Writer, now time.Time, colour bool) {
	paint := func(code, text string) string {
		if !colour {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	fmt.Fprintf(w, "%s from %s\n\n", t.Question.Text, t.From)
	where, part := 0, 0
	for _, h := range t.Hops {
		where, part = max(where, utf8.RuneCountInString(h.Where)), max(part, utf8.RuneCountInString(h.Part))
	}
	indent := strings.Repeat(" ", where+part+8)
	for _, h := range t.Hops {
		m := marks[h.State]
		fmt.Fprintf(w, "  %s %s  %s  %s%s\n", paint(m.colour, m.mark), pad(h.Where, where), pad(h.Part, part), h.Text, paint("2", decided(h, now)))
		if h.Want != "" {
			fmt.Fprintf(w, "%s%s\n", indent, paint(m.colour, "wanted: "+h.Want))
		}
	}
	verdict := asked.OK
	switch t.Verdict {
	case Fails:
		verdict = asked.Broken
	case Partly:
		verdict = asked.Differs
	case Unclear, Perhaps:
		verdict = asked.Unknown
	}
	line := "It " + string(t.Verdict)
	if t.Summary != "" {
		line += ": " + t.Summary
	}
	fmt.Fprintf(w, "\n%s\n", paint("1;"+marks[verdict].colour, strings.TrimSuffix(line, ".")+"."))
	if t.Remedy != "" {
		fmt.Fprintf(w, "─> %s\n", t.Remedy)
	}
}

// decided names the object that decided a hop, with its age.
func decided(h asked.Hop, now time.Time) string {
	if h.Object.Name == "" {
		return ""
	}
	text := "  [" + h.Object.String()
	if !h.Since.IsZero() {
		text += ", " + age(now.Sub(h.Since))
	}
	return text + "]"
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s))) }
