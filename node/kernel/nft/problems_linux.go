package nft

import (
	"sync"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// A refusal is an element that the kernel did not take.
type refusal struct {
	nfnetlink.Element
	err error
}

// told is what Problems tells, as the last Set left it.
type told struct {
	mu      sync.Mutex
	refused []refused
}

// refused is a refusal with the Service that it concerns, the zero Key for none.
type refused struct {
	refusal
	service model.Key
}

// tell notes what the kernel refused. The caller holds t.mu.
func (t *Table) tell() {
	t.told.mu.Lock()
	defer t.told.mu.Unlock()
	t.told.refused = nil
	for _, r := range t.refused {
		t.told.refused = append(t.told.refused, refused{r, t.owner(r.Element)})
	}
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
	return out
}

// owner is the Service whose frontend an element belongs to, the zero Key for none.
func (t *Table) owner(e nfnetlink.Element) model.Key {
	if f, ours := ruleset.FrontendOf(e); ours {
		return t.wanted.Owners[f]
	}
	return model.Key{}
}
