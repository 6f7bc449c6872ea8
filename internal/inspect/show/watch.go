package show

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Watcher prints what is new since it was asked the last time.
type Watcher struct {
	Kind    Kind
	Options Options

	last  map[string]string // by object: its cells without ages
	wrote bool
}

// Write prints the items that are new or changed, and those that are gone. An age alone is no change.
func (w *Watcher) Write(out io.Writer, list []Item, now time.Time) error {
	current := map[string]string{}
	var changed []Item
	for _, item := range list {
		key, content := w.identify(item)
		current[key] = content
		if before, known := w.last[key]; !known || before != content {
			changed = append(changed, item)
		}
	}
	var gone []string
	for key := range w.last {
		if _, still := current[key]; !still {
			gone = append(gone, key)
		}
	}
	w.last = current
	options := w.Options
	options.Now, options.Headless = now, options.Headless || w.wrote
	var b bytes.Buffer
	if len(changed) > 0 {
		w.wrote = true
		if err := w.Kind.Write(&b, changed, options); err != nil {
			return err
		}
	}
	slices.Sort(gone)
	for _, key := range gone {
		fmt.Fprintf(&b, "gone: %s\n", strings.ReplaceAll(strings.TrimSpace(key), "\x00", " "))
	}
	_, err := out.Write(b.Bytes())
	return err
}

// identify names an item and says what there is to see of it. The first columns name an object of each kind; what
// changes by itself, ages and counters of packets but for the first time, is shown as it was then.
func (w *Watcher) identify(item Item) (key, content string) {
	cells := item.cells(time.Time{})
	var names, rest []string
	for i, c := range cells {
		switch {
		case i < w.Kind.names():
			names = append(names, c.Text)
		case !slices.Contains([]string{"AGE", "SINCE", "UP", "EXPIRES", "SNAPSHOT"}, w.Kind.columns[i].Name):
			rest = append(rest, c.Text)
		}
	}
	return strings.Join(names, "\x00"), strings.Join(rest, "\x00")
}

// names is how many columns name an object.
func (k Kind) names() int {
	switch k.Name {
	case "routes":
		return 3
	case "services", "drops":
		return 2
	case "problems":
		return 4
	}
	return 1
}
