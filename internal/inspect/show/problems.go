package show

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/model"
)

// A Problem is one with all processes that have it.
type Problem struct {
	inspect.ProblemAnswer
	// SaidBy are the names of the processes, "node1/gateway".
	SaidBy []string `json:"saidBy"`
}

// Problems merges the answers of all processes.
func Problems(answers []From[[]inspect.ProblemAnswer]) []Item {
	merged := map[inspect.ProblemAnswer]*Problem{}
	for _, from := range answers {
		for _, a := range from.Answer {
			p := merged[a]
			if p == nil {
				p = &Problem{ProblemAnswer: a}
				merged[a] = p
			}
			if !slices.Contains(p.SaidBy, from.Process) {
				p.SaidBy = append(p.SaidBy, from.Process)
			}
		}
	}
	return items(sortedBy(merged, func(a, b inspect.ProblemAnswer) int {
		return cmp.Or(
			cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message),
		)
	}))
}

func (p *Problem) place() (string, string) { return p.Namespace, p.Name }

func (p *Problem) cells(time.Time) []Cell {
	object := model.ObjectRef{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}
	slices.Sort(p.SaidBy)
	return []Cell{
		text(object.String()), {p.Reason, Bad}, words(p.SaidBy), text(strings.ReplaceAll(p.Message, "\n", " ")),
	}
}
