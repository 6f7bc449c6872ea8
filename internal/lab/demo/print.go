package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A printer writes what happens, for people. It is used by one goroutine.
type printer struct {
	out    io.Writer
	colour bool
	step   int
	failed []string
	title  string
}

func newPrinter(out io.Writer) *printer {
	p := &printer{out: out}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		info, err := f.Stat()
		p.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

const (
	bold  = "1"
	green = "32"
	red   = "31"
	grey  = "90"
)

func (p *printer) paint(code, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *printer) begin(title string) {
	p.step++
	p.title = title
	fmt.Fprintf(p.out, "\n%s\n", p.paint(bold, fmt.Sprintf("%d. %s", p.step, title)))
}

func (p *printer) note(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(p.out, "     %s\n", line)
	}
}

// check runs f and prints what was asked, what answered and how long it took.
func (p *printer) check(asked string, f func() (answer string, err error)) bool {
	started := time.Now()
	answer, err := f()
	p.result(asked, answer, time.Since(started), err)
	return err == nil
}

func (p *printer) result(asked, answer string, took time.Duration, err error) {
	if err != nil {
		p.failed = append(p.failed, fmt.Sprintf("step %d, %s: %s: %v", p.step, p.title, asked, err))
		fmt.Fprintf(p.out, "  %s %s: %v %s\n", p.paint(red, "✗"), asked, err, p.paint(grey, span(took)))
		return
	}
	if answer != "" {
		answer = ": " + answer
	}
	fmt.Fprintf(p.out, "  %s %s%s %s\n", p.paint(green, "✓"), asked, answer, p.paint(grey, span(took)))
}

// span writes a duration as people read it.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("(%.1f ms)", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("(%d ms)", d.Milliseconds())
	}
	return fmt.Sprintf("(%.1f s)", d.Seconds())
}
