package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/internal/model"
)

// A migration says of manifests written for ingress-nginx what the gateway makes of them.
type migration struct {
	Objects []migratedObject `json:"objects"`
	Skipped []translatedSkip `json:"skipped"`
	Summary map[verdict]int  `json:"summary"`
}

// A migratedObject is an Ingress, or another object that there is a Problem with.
type migratedObject struct {
	Kind      string            `json:"kind"`
	Namespace string            `json:"namespace,omitempty"`
	Name      string            `json:"name"`
	Settings  []migratedSetting `json:"settings"`
}

// A migratedSetting is an annotation, or what else of an object is not served as it is written.
type migratedSetting struct {
	// Setting is the annotation, or the Problem's reason. Those of ingress-nginx are without prefix in the table.
	Setting string  `json:"setting"`
	Value   string  `json:"value,omitempty"`
	Verdict verdict `json:"verdict"`
	Message string  `json:"message,omitempty"`
}

// A verdict is what becomes of a setting.
type verdict string

// The verdicts.
const (
	kept     verdict = "kept"       // as ingress-nginx takes it
	changed  verdict = "changed"    // its nearest or its safe meaning
	needless verdict = "not needed" // nothing is to be done
	refused  verdict = "refused"    // no effect
	closed   verdict = "closed"     // its paths answer 503
	problem  verdict = "problem"    // something else is not served as it is written
)

// annotationReasons are of Problems that an annotation's own line tells already.
var annotationReasons = []string{nginx.Ignored, nginx.Unprotected, nginx.Invalid}

// migrate says what becomes of each object. problems are those of the gateway.
func migrate(s *model.Snapshot, problems []model.Problem, skipped []gateway.SkippedIngress) migration {
	m := migration{Objects: []migratedObject{}, Skipped: []translatedSkip{}, Summary: map[verdict]int{}}
	foreign := map[model.Key]bool{}
	for _, i := range skipped {
		foreign[i.Ingress] = true
		m.Skipped = append(m.Skipped, translatedSkip{i.Ingress.String(), i.Class, i.Reason})
	}
	settings := map[model.ObjectRef][]migratedSetting{}
	for key, ing := range s.Ingresses.All() {
		if ing == nil || foreign[key] {
			continue
		}
		object := model.Ref("Ingress", key)
		settings[object] = []migratedSetting{}
		for _, t := range nginx.Explain(ing.Annotations) {
			settings[object] = append(settings[object], explained(t))
		}
	}
	for _, p := range problems {
		list := settings[p.Object]
		own := slices.IndexFunc(list, func(s migratedSetting) bool { return mentions(p.Message, s.Setting) })
		switch {
		case own >= 0 && (p.Reason == nginx.Invalid || !slices.Contains(annotationReasons, p.Reason)):
			list[own].Message = p.Message
			if list[own].Verdict != closed {
				list[own].Verdict = refused
			}
			if strings.HasSuffix(p.Message, " 503") {
				list[own].Verdict = closed
			}
		case own >= 0 || p.Reason == nginx.Ignored && p.Object.Kind == "Ingress":
		default:
			settings[p.Object] = append(list, migratedSetting{Setting: p.Reason, Verdict: problem, Message: p.Message})
		}
	}
	for object, list := range settings {
		for i := range list {
			m.Summary[list[i].Verdict]++
		}
		m.Objects = append(m.Objects, migratedObject{object.Kind, object.Namespace, object.Name, list})
	}
	slices.SortFunc(m.Objects, func(a, b migratedObject) int {
		return cmp.Or(compareKinds(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return m
}

// compareKinds has Ingresses first.
func compareKinds(a, b string) int {
	rank := func(kind string) string {
		if kind == "Ingress" {
			return ""
		}
		return kind
	}
	return cmp.Compare(rank(a), rank(b))
}

// mentions says whether a message names an annotation by its whole name.
func mentions(message, annotation string) bool {
	for rest := message; ; {
		_, after, found := strings.Cut(rest, annotation)
		if !found {
			return false
		}
		if after == "" || !strings.ContainsRune("-abcdefghijklmnopqrstuvwxyz0123456789", rune(after[0])) {
			return true
		}
		rest = after
	}
}

// explained is an annotation as nginx.Read alone takes it.
func explained(t nginx.Taken) migratedSetting {
	s := migratedSetting{Setting: t.Annotation, Value: t.Value, Message: t.Key.Note}
	switch {
	case t.Note != nil && t.Note.Closed:
		s.Verdict = closed
	case !t.Known:
		s.Verdict, s.Message = refused, "ingress-nginx has no such annotation"
	case t.Note != nil && t.Note.Reason == nginx.Invalid:
		s.Verdict = refused
	case t.Key.Support == nginx.Full:
		s.Verdict = kept
	case t.Key.Support == nginx.Nearest || t.Key.Support == nginx.Safe:
		s.Verdict = changed
	case t.Key.Support == nginx.Needless:
		s.Verdict = needless
	case t.Value == "": // it says nothing
		s.Verdict = kept
	default:
		s.Verdict = refused
	}
	switch {
	case t.Note != nil && t.Note.Message != "":
		s.Message = t.Note.Message
	case s.Verdict == closed:
		s.Message = "it asks for a protection that is not supported; all paths answer 503"
	case s.Verdict == refused && s.Message == "":
		s.Message = "it has no effect yet"
	}
	return s
}

// writeMigration prints a line for each setting, and one for each Ingress without any.
func writeMigration(w io.Writer, m migration) error {
	if len(m.Objects) == 0 {
		_, err := fmt.Fprintln(w, "No Ingress of ingress-nginx was found.")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "OBJECT\tSETTING\tVERDICT\tWHAT")
	for _, o := range m.Objects {
		object := model.ObjectRef{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
		if len(o.Settings) == 0 {
			fmt.Fprintf(table, "%s\t-\t%s\t\n", object, kept)
		}
		for _, s := range o.Settings {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", object, strings.TrimPrefix(s.Setting, nginx.Prefix), s.Verdict, s.Message)
		}
	}
	return table.Flush()
}

// summary counts the verdicts: "3 kept, 1 refused".
func (m migration) summary() string {
	var words []string
	for _, v := range []verdict{kept, changed, needless, refused, closed, problem} {
		if n := m.Summary[v]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, v))
		}
	}
	if len(words) == 0 {
		return "nothing is written for ingress-nginx"
	}
	return strings.Join(words, ", ")
}

// lost says whether something that was asked for is not done.
func (m migration) lost() bool { return m.Summary[refused]+m.Summary[closed]+m.Summary[problem] > 0 }
