package nginx

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Prefix begins the annotations, legacyPrefix those of the time before 2018, which are read where the newer is absent.
const (
	Prefix       = "nginx.ingress.kubernetes.io/"
	legacyPrefix = "ingress.kubernetes.io/"
)

// Read reads the annotations of an Ingress. Notes are sorted by annotation. An annotation that cannot be read costs itself.
func Read(annotations map[string]string) (Settings, []Note) {
	var s Settings
	var notes []Note
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		option, ok := optionOf(name, annotations)
		if !ok {
			continue
		}
		value := strings.TrimSpace(annotations[name])
		if note, bad := s.take(name, option, value); bad {
			notes = append(notes, note)
		}
	}
	s.settle()
	return s, notes
}

// optionOf is the annotation's name without prefix; ok is false if it is none of ingress-nginx's, or one that a newer
// spelling overrides.
func optionOf(name string, all map[string]string) (option string, ok bool) {
	if option, ok = strings.CutPrefix(name, Prefix); ok {
		return option, true
	}
	if option, ok = strings.CutPrefix(name, legacyPrefix); !ok {
		return "", false
	}
	_, newer := all[Prefix+option]
	_, known := byName[option]
	return option, known && !newer // others use this prefix too
}

// take reads one annotation. bad says that there is something to tell.
func (s *Settings) take(name, option, value string) (n Note, bad bool) {
	key, known := byName[option]
	n = Note{Reason: Ignored, Annotation: name}
	switch {
	case !known:
		return n, true
	case value == "" && key.read == nil, key.Support == Needless:
		return n, false
	case key.Protects && key.read == nil:
		n.Reason, n.Closed = Unprotected, true
		return n, true
	case key.read == nil:
		n.Message = key.Note
		return n, true
	}
	if err := key.read(s, value); err != nil {
		var harmless *harmlessError
		n.Reason, n.Closed = Invalid, key.Protects && !errors.As(err, &harmless)
		n.Message = fmt.Sprintf("annotation %s: %v", name, err)
		return n, true
	}
	return n, false
}

// settle decides what several annotations say together.
func (s *Settings) settle() {
	if s.ForceRedirect {
		s.NoRedirect = false // so does nginx
	}
	s.settleCanary()
	s.settleSession()
	s.settleLimits()
	s.settleBalance()
	s.settleMirror()
	s.settleCORS()
	s.settleExternal()
	s.settleAuth()
	s.settleClients()
	s.settleRedirects()
	s.settleErrorPages()
}

// Keys is the table, sorted by name.
func Keys() []Key { return slices.Clone(table) }

// Table is the table as Markdown, for the documentation.
func Table() string {
	var b strings.Builder
	b.WriteString("| annotation | taken | |\n|---|---|---|\n")
	for _, k := range table {
		taken := k.Support.String()
		if k.Protects {
			taken += ", protects"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Name, taken, strings.ReplaceAll(k.Note, "|", `\|`))
	}
	return b.String()
}
