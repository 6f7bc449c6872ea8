package speaker

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/lb/arp"
	"hythe.dev/hythe/lb/members"
)

// TestVigil waits for a node of which each line tells what was heard by ARP, each 100 ms one letter: "a" an answer,
// "." none, "?" while this node is not sure of its ears.
func TestVigil(t *testing.T) {
	for name, c := range map[string]struct {
		heard string
		gone  int // the letter at which it counts as gone, -1 for never
	}{
		"its agent restarts":           {strings.Repeat("a", 30), -1},
		"switched off":                 {"aaa" + strings.Repeat(".", 27), 12},
		"never heard since it asked":   {"a" + strings.Repeat(".", 29), -1},
		"answers are lost":             {"aa........aa.......a........a", -1},
		"behind a router":              {strings.Repeat(".", 30), -1},
		"the own cable is cut":         {"aaa" + strings.Repeat("?", 27), -1},
		"the own cable is cut, healed": {"aaa" + strings.Repeat("?", 20) + ".......a....a", -1},
		"off, and this node stalls":    {"aaa...?" + strings.Repeat(".", 20), 16},
		"off while the cable is cut":   {"aaa" + strings.Repeat("?", 20) + strings.Repeat(".", 12), 32},
		"it is not heard, and unsure":  {"a?" + strings.Repeat(".", 30), -1},
		"the same, and it is gone":     {"aaa" + strings.Repeat("?", 20) + "a" + strings.Repeat(".", 15), 33},
	} {
		t.Run(name, func(t *testing.T) {
			var v vigil
			start := time.Unix(1e9, 0)
			held := []members.Member{{Name: "other"}, {Name: "n2", Held: true}}
			last, gone := start.Add(-time.Second), -1
			for i, letter := range c.heard {
				now := start.Add(time.Duration(i) * 100 * time.Millisecond)
				if letter == 'a' {
					last = now.Add(time.Millisecond)
				}
				names := v.step(now.Add(2*time.Millisecond), held, func(string) time.Time { return last }, letter != '?')
				if len(names) > 0 && gone < 0 {
					gone = i
				}
			}
			if gone != c.gone {
				t.Errorf("%s: gone at %d, want %d", c.heard, gone, c.gone)
			}
			v.step(start, held[:1], nil, true)
			if len(v.since) != 0 {
				t.Error("a node that is back is still watched")
			}
		})
	}
}

// TestFullDiskKeepsVIPs cannot write what is owned: it says so, and writes it when there is room, without another
// change.
func TestFullDiskKeepsVIPs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := &Speaker{opts: Options{Data: dir, Node: "n1", Log: slog.New(slog.DiscardHandler)}, failed: map[string]error{}, keeper: newKeeper("n1", arp.Quick(), nil)}
	stored := map[netip.Addr]Stored{netip.MustParseAddr("203.0.113.1"): {Generation: 7, Owned: true}}
	now := time.Unix(1e9, 0)
	s.write(now, true, stored)
	problems := s.Problems()
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "Make room") {
		t.Fatalf("problems: %v", problems)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.write(now.Add(writeAgain/2), false, stored)
	if got, _ := load(dir); len(got) != 0 {
		t.Error("it is tried more often than once a second")
	}
	s.write(now.Add(writeAgain), false, stored)
	if got, err := load(dir); err != nil || len(got) != 1 || len(s.Problems()) != 0 {
		t.Errorf("stored %v, error %v, problems %v", got, err, s.Problems())
	}
	before, err := os.Stat(filepath.Join(dir, storeName))
	if err != nil {
		t.Fatal(err)
	}
	s.write(now.Add(10*writeAgain), false, stored)
	if after, err := os.Stat(filepath.Join(dir, storeName)); err != nil || !os.SameFile(before, after) {
		t.Error("what is written is written again")
	}
}
