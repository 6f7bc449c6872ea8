package check

import (
	"fmt"
	"io"
)

// WriteText writes findings for people. mark returns what is written before and after the word of a severity, for colours;
// it may be nil.
func WriteText(w io.Writer, findings []Finding, mark func(Severity) (before, after string)) {
	if mark == nil {
		mark = func(Severity) (string, string) { return "", "" }
	}
	for _, f := range findings {
		before, after := mark(f.Severity)
		fmt.Fprintf(w, "%s%-7s%s  %-10s  %s\n", before, f.Severity, after, f.Check, f.Seen)
		if f.Remedy != "" {
			fmt.Fprintf(w, "%21s-> %s\n", "", f.Remedy)
		}
	}
}
