package nft

import (
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// A refusal is an element that the kernel did not take.
type refusal struct {
	nfnetlink.Element
	err error
}

// rivalAge is how old an answer about another proxy may be.
const rivalAge = 5 * time.Second

// told is what Problems tells, as the last Set left it.
type told struct {
	mu      sync.Mutex
	refused []refused
	rival   string // where the rules of another Service proxy are, "" for none
	asked   time.Time
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

// Problems says what the table does not hold though it should, and who works against it. node is this node's name.
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
	if time.Since(t.told.asked) > rivalAge {
		// A kernel that does not answer is heard of by Set.
		t.told.rival, _ = findRival(t.netns)
		t.told.asked = time.Now()
	}
	if t.told.rival != "" {
		out = append(out, model.Problemf(self, "OtherServiceProxy",
			"There are rules of kube-proxy (%s): which of the two serves a connection is chance. Stop kube-proxy and run kube-proxy --cleanup, or start hythe node with --without-proxy.",
			t.told.rival))
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

// findRival looks for the rules of kube-proxy, in its own tables or in those of iptables-nft. It asks for them by name:
// to list another proxy's chains takes long.
func findRival(netns int) (string, error) {
	c, err := nfnetlink.Dial(netns)
	if err != nil {
		return "", err
	}
	defer c.Close()
	for _, place := range []struct {
		family      byte
		table, name string
	}{
		{unix.NFPROTO_IPV4, "kube-proxy", ""}, {unix.NFPROTO_IPV6, "kube-proxy", ""},
		{unix.NFPROTO_IPV4, "nat", "KUBE-SERVICES"}, {unix.NFPROTO_IPV6, "nat", "KUBE-SERVICES"},
	} {
		switch there, err := c.Has(place.family, place.table, place.name); {
		case err != nil:
			return "", err
		case there:
			return strings.TrimSpace("table " + nfnetlink.FamilyName(place.family) + " " + place.table + " " + place.name), nil
		}
	}
	return "", nil
}
