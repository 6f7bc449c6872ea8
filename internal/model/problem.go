package model

import (
	"cmp"
	"fmt"
	"slices"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
)

// A Problem says that something was asked of Hythe that it did not do, and why. Message names the remedy. It
// never holds secret data.
type Problem struct {
	Object ObjectRef
	// Reason is one CamelCase word that machines can count, for example SecretNotFound.
	Reason string
	// Message is for people: one sentence or two.
	Message string
	// Stack is where a panic happened that Contain caught, for the log; else empty.
	Stack string
}

// ReasonInternalError is the reason of what Contain caught.
const ReasonInternalError = "InternalError"

// Contain does what is about one object. A panic in it, which is a fault of Hythe's or of a library, costs that object
// alone, and is the Problem that it returns: otherwise it would stop every change of every other, at each start anew. cost
// says what the object's owner loses, as a sentence without its full stop.
func Contain(object ObjectRef, cost string, f func()) []Problem {
	if p := contain.Do(f); p != nil {
		return []Problem{InternalError(object, cost, p)}
	}
	return nil
}

// InternalError is the Problem of a panic.
func InternalError(object ObjectRef, cost string, p *contain.Panic) Problem {
	problem := Problemf(object, ReasonInternalError,
		"%s, by a fault of Hythe's (%s, at %s). Other objects are not touched. Report this with the log of hythe; a change of the object may help until then.",
		cost, p.What, p.Place)
	problem.Stack = p.Stack
	return problem
}

// An ObjectRef names the object that a Problem is about. Namespace is empty for cluster-scoped kinds. For
// something that is not yet an object, such as a file, Kind is "File" and Name its path.
type ObjectRef struct {
	Kind, Namespace, Name string
}

// Ref makes an ObjectRef of a namespaced object.
func Ref(kind string, k Key) ObjectRef {
	return ObjectRef{Kind: kind, Namespace: k.Namespace, Name: k.Name}
}

// String is "Ingress default/shop" or "AddressPool edge".
func (r ObjectRef) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Problemf makes a Problem.
func Problemf(object ObjectRef, reason, format string, args ...any) Problem {
	return Problem{Object: object, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// String is one line.
func (p Problem) String() string {
	return fmt.Sprintf("%s: %s: %s", p.Object, p.Reason, p.Message)
}

// Compare orders problems by object, reason and message.
func (p Problem) Compare(o Problem) int {
	return cmp.Or(
		cmp.Compare(p.Object.Kind, o.Object.Kind),
		cmp.Compare(p.Object.Namespace, o.Object.Namespace),
		cmp.Compare(p.Object.Name, o.Object.Name),
		cmp.Compare(p.Reason, o.Reason),
		cmp.Compare(p.Message, o.Message),
		cmp.Compare(p.Stack, o.Stack),
	)
}

// SortProblems orders problems and removes repeated ones. It works in place.
func SortProblems(problems []Problem) []Problem {
	slices.SortFunc(problems, Problem.Compare)
	return slices.Compact(problems)
}

// Reported turns problems into the form that a Report holds.
func Reported(problems []Problem) []v1alpha1.ReportedProblem {
	out := make([]v1alpha1.ReportedProblem, 0, len(problems))
	for _, p := range problems {
		out = append(out, v1alpha1.ReportedProblem{
			Kind: p.Object.Kind, Namespace: p.Object.Namespace, Name: p.Object.Name,
			Reason: p.Reason, Message: p.Message,
		})
	}
	return out
}
