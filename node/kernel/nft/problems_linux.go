package nft

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// maxTold is how many refused elements are told one by one.
const maxTold = 50

// told is what Problems tells.
type told struct {
	mu      sync.Mutex
	refused []refused // the first maxTold
	more    int
}

// refused is a refusal with the Service that it concerns, the zero Key for none.
type refused struct {
	refusal
	service model.Key
}

// tell notes what the kernel refused. The caller holds t.mu.
func (t *Table) tell() {
	if !t.news {
		return
	}
	t.news = false
	t.told.mu.Lock()
	defer t.told.mu.Unlock()
	t.told.refused, t.told.more = nil, 0
	for _, r := range t.sortedRefusals() {
		t.told.refused = append(t.told.refused, refused{r, t.owner(r.Element)})
	}
	t.told.more = len(t.refused) - len(t.told.refused)
}

// sortedRefusals returns what the kernel refused, at most maxTold.
func (t *Table) sortedRefusals() []refusal {
	all := slices.SortedFunc(maps.Values(t.refused), func(a, b refusal) int {
		return cmp.Or(strings.Compare(a.Set, b.Set), strings.Compare(a.Key, b.Key))
	})
	return all[:min(len(all), maxTold)]
}

// A RefusedError says what the kernel refused, though nothing failed: all else is in place. It is tried again by each Set, and by Run.
type RefusedError struct {
	// Frontends are those that lead nowhere, or where they led before.
	Frontends []proxy.Frontend
	errs      []error // at most maxTold, and how many more
}

// Error implements error.
func (e *RefusedError) Error() string { return errors.Join(e.errs...).Error() }

// Unwrap returns what the kernel says of each element.
func (e *RefusedError) Unwrap() []error { return e.errs }

// refusals is what the kernel refused as an error, nil for nothing.
func (t *Table) refusals() error {
	if len(t.refused) == 0 {
		return nil
	}
	out := &RefusedError{}
	for _, r := range t.sortedRefusals() {
		out.errs = append(out.errs, r)
	}
	if more := len(t.refused) - len(out.errs); more > 0 {
		out.errs = append(out.errs, fmt.Errorf("%d further elements were refused", more))
	}
	frontends := proxy.Set[proxy.Frontend]{}
	for e := range t.refused {
		if f, is := ruleset.FrontendOf(e); is {
			frontends[f] = struct{}{}
		}
	}
	out.Frontends = slices.SortedFunc(maps.Keys(frontends), proxy.Frontend.Compare)
	return out
}

// Problems says what the table does not hold though it should. node is this node's name.
func (t *Table) Problems(node string) []model.Problem {
	t.told.mu.Lock()
	defer t.told.mu.Unlock()
	self := model.ObjectRef{Kind: "Node", Name: node}
	var out []model.Problem
	for _, r := range t.told.refused {
		object := self
		if r.service != (model.Key{}) {
			object = model.Ref("Service", r.service)
		}
		out = append(out, model.Problemf(object, "RefusedByKernel",
			"The kernel of node %s refused the element %s: %v. All others are in place. Look at this Service's addresses, ports and endpoints; if they are right, report it as a fault of Hythe.",
			node, ruleset.ElementText(r.Element), r.err))
	}
	if more := t.told.more; more > 0 {
		out = append(out, model.Problemf(self, "RefusedByKernel",
			"The kernel of node %s refused %d further elements. Mend those that are named, or look at the agent's log.", node, more))
	}
	return out
}

// owner is the Service whose frontend an element belongs to, the zero Key for none.
func (t *Table) owner(e nfnetlink.Element) model.Key {
	if f, ours := ruleset.FrontendOf(e); ours {
		return t.wanted.Owners[f]
	}
	return model.Key{}
}
