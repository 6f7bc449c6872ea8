package speaker

import (
	"testing"
	"time"
)

// TestExcludedNode labels the owner of VIPs as one that balances no load: they move, and at no moment is one without an
// owner. The node takes none while it is labelled, also when it is the last, and gives none away before there is another.
func TestExcludedNode(t *testing.T) {
	s := newSimulation(t, 1, 3, 6)
	s.run(5 * time.Second)
	s.one("at first")
	n1 := s.node("n1")
	if len(n1.owned) == 0 {
		t.Fatal("n1 owns nothing that could move")
	}
	n1.excluded = true
	for range 40 {
		s.run(simStep)
		for _, v := range s.vips {
			if len(s.owners(v.Addr)) == 0 {
				t.Fatalf("nobody owns %s while it moves", v.Addr)
			}
		}
	}
	s.one("when n1 is excluded")
	if len(n1.owned) != 0 {
		t.Errorf("n1 is excluded and owns %v", n1.owned)
	}
	s.node("n2").up = false
	s.run(5 * time.Second)
	s.one("when n2 is gone")
	if len(n1.owned) != 0 {
		t.Errorf("n1 is excluded and took %v", n1.owned)
	}
	n3 := s.node("n3")
	n3.excluded = true
	s.run(5 * time.Second)
	if len(n3.owned) != len(s.vips) {
		t.Errorf("n3 gave VIPs away that nobody took: it owns %v", n3.owned)
	}
	n1.excluded = false
	s.run(5 * time.Second)
	s.one("when n1 is back")
	if len(n3.owned) != 0 {
		t.Errorf("n3 is excluded and owns %v", n3.owned)
	}
}
