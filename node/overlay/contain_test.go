package overlay

import (
	"fmt"
	"net/netip"
	"testing"

	"hythe.dev/hythe/internal/contain/broken"
	"hythe.dev/hythe/internal/model"
)

// TestPanicCostsOneNode breaks a Node: the ways to all others are there. The own one keeps the overlay as it is.
func TestPanicCostsOneNode(t *testing.T) {
	s := &model.Snapshot{Nodes: map[string]*model.Node{}}
	for i := range 4 {
		name := fmt.Sprint("n", i)
		s.Nodes[name] = &model.Node{Name: name, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})},
			PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24)}}
	}
	s.Nodes["n2"].PodCIDRs = broken.Slice[netip.Prefix]()
	state, problems := Build(s, "n0", Settings{})
	if len(state.Forwards) != 2 || len(state.Routes) != 3 {
		t.Errorf("not the ways to two nodes: %v", state)
	}
	if len(problems) != 1 || problems[0].Object.String() != "Node n2" || problems[0].Reason != model.ReasonInternalError || problems[0].Stack == "" {
		t.Errorf("problems %v", problems)
	}
	if own, _ := Build(s, "n2", Settings{}); !own.Keep {
		t.Errorf("the broken node's own overlay: %v", own)
	}
}
