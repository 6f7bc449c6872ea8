package show

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/duration"
)

// A Tone says how a cell is meant, for terminals with colours.
type Tone uint8

const (
	// Plain is as it should be, or neither good nor bad.
	Plain Tone = iota
	// Good is worth a look because it is well.
	Good
	// Warn may need somebody's attention.
	Warn
	// Bad does not work.
	Bad
)

// codes are the select graphic rendition sequences of ECMA-48.
var codes = [...]string{Plain: "", Good: "\x1b[32m", Warn: "\x1b[33m", Bad: "\x1b[31m"}

const (
	bold  = "\x1b[1m"
	reset = "\x1b[0m"
)

// Code returns what is written before and after text of a tone on a terminal with colours.
func Code(t Tone) (before, after string) {
	if t == Plain {
		return "", ""
	}
	return codes[t], reset
}

// A Cell is one field of a table.
type Cell struct {
	Text string
	Tone Tone
}

// A Column is the head of one. Wide ones are left out of the narrow form.
type Column struct {
	Name string
	Wide bool
}

// columns reads "NAME HOST +NODES": a plus marks a wide column, an underscore stands for a space.
func columns(text string) []Column {
	var out []Column
	for _, name := range strings.Fields(text) {
		name, wide := strings.CutPrefix(name, "+")
		out = append(out, Column{Name: strings.ReplaceAll(name, "_", " "), Wide: wide})
	}
	return out
}

// writeTable aligns the columns that keep is true for.
func writeTable(w io.Writer, cols []Column, rows [][]Cell, keep func(int) bool, head, colour bool) error {
	widths := make([]int, len(cols))
	if head {
		for i, c := range cols {
			widths[i] = utf8.RuneCountInString(c.Name)
		}
	}
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Text))
		}
	}
	var b strings.Builder
	if head {
		cells := make([]Cell, len(cols))
		for i, c := range cols {
			cells[i].Text = c.Name
		}
		writeRow(&b, cells, widths, keep, func(Cell) string {
			if colour {
				return bold
			}
			return ""
		})
	}
	for _, row := range rows {
		writeRow(&b, row, widths, keep, func(c Cell) string {
			if colour {
				return codes[c.Tone]
			}
			return ""
		})
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeRow(b *strings.Builder, row []Cell, widths []int, keep func(int) bool, code func(Cell) string) {
	pad := 0
	for i, c := range row {
		if !keep(i) {
			continue
		}
		b.WriteString(strings.Repeat(" ", pad))
		start := code(c)
		b.WriteString(start + c.Text)
		if start != "" {
			b.WriteString(reset)
		}
		pad = widths[i] - utf8.RuneCountInString(c.Text) + 3
	}
	b.WriteByte('\n')
}

// age is how long ago t was, as kubectl writes it.
func age(t, now time.Time) Cell {
	if t.IsZero() {
		return Cell{Text: "<unknown>"}
	}
	return Cell{Text: duration.HumanDuration(max(0, now.Sub(t)))} // clocks differ
}

// until is how long a certificate is valid yet.
func until(t, now time.Time) Cell {
	switch left := t.Sub(now); {
	case t.IsZero():
		return Cell{Text: "-"}
	case left <= 0:
		return Cell{"expired " + duration.HumanDuration(-left) + " ago", Bad}
	case left < 14*24*time.Hour:
		return Cell{duration.HumanDuration(left), Warn}
	default:
		return Cell{Text: duration.HumanDuration(left)}
	}
}

// text is a cell with a dash for nothing.
func text(s string) Cell {
	if s == "" {
		s = "-"
	}
	return Cell{Text: s}
}

func texts(format string, args ...any) Cell { return Cell{Text: fmt.Sprintf(format, args...)} }

// list joins at most three of a list in the narrow form; wide forms have a column of their own.
func list[T fmt.Stringer](items []T) Cell {
	out := make([]string, len(items))
	for i := range items {
		out[i] = items[i].String()
	}
	return words(out)
}

func words(items []string) Cell {
	if len(items) > 3 {
		return texts("%s + %d more", strings.Join(items[:2], ","), len(items)-2)
	}
	return text(strings.Join(items, ","))
}

// outOf is "2/3", Bad unless all are.
func outOf(n, all int, otherwise Tone) Cell {
	c := texts("%d/%d", n, all)
	if n != all {
		c.Tone = otherwise
	}
	return c
}

// sortedBy returns the values of m in the order of their keys.
func sortedBy[K comparable, V any](m map[K]V, compare func(a, b K) int) []V {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compare)
	out := make([]V, len(keys))
	for i, k := range keys {
		out[i] = m[k]
	}
	return out
}
