package nginx

import (
	"maps"
	"slices"
	"strings"
)

// Taken says how one annotation of an Ingress is taken.
type Taken struct {
	// Annotation is the whole name, Value what it is set to.
	Annotation, Value string
	// Key is its entry of the table; Known is false if there is none.
	Key   Key
	Known bool
	// Note is what Read says of it; nil for nothing.
	Note *Note
}

// Explain says how each annotation is taken, sorted by name. Those of others are left out.
func Explain(annotations map[string]string) []Taken {
	var s Settings
	var out []Taken
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		option, ok := optionOf(name, annotations)
		if !ok {
			continue
		}
		value := strings.TrimSpace(annotations[name])
		taken := Taken{Annotation: name, Value: value}
		taken.Key, taken.Known = byName[option]
		if note, bad := s.take(name, option, value); bad {
			taken.Note = &note
		}
		out = append(out, taken)
	}
	return out
}
