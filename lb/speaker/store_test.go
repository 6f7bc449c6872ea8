package speaker

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hythe.dev/hythe/lb"
	"hythe.dev/hythe/lb/arp"
	"hythe.dev/hythe/lb/members"
)

// A restart that resumes what was owned leaves the file alone.
func TestSaveWritesChangesOnly(t *testing.T) {
	dir := t.TempDir()
	vips := map[netip.Addr]Stored{netip.MustParseAddr("203.0.113.10"): {Generation: 3, Owned: true}}
	stat := func() os.FileInfo {
		info, err := os.Stat(filepath.Join(dir, storeName))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	for _, step := range []struct {
		owned, writes bool
	}{{true, true}, {true, false}, {false, true}} {
		var before os.FileInfo
		if !step.writes {
			before = stat()
		}
		vips[netip.MustParseAddr("203.0.113.10")] = Stored{Generation: 3, Owned: step.owned}
		if err := save(dir, vips); err != nil {
			t.Fatal(err)
		}
		if before != nil && !os.SameFile(before, stat()) {
			t.Error("the same was written again")
		}
		got, err := load(dir)
		if err != nil || len(got) != 1 || got[netip.MustParseAddr("203.0.113.10")] != vips[netip.MustParseAddr("203.0.113.10")] {
			t.Errorf("read %v, %v after writing %v", got, err, vips)
		}
	}
}

// A node that was killed as the owner and finds another one when it is back writes that down: its next restart, maybe
// while the new owner is away for a moment, must not resume the old ownership.
func TestSupersededIsForgotten(t *testing.T) {
	vip := netip.MustParseAddr("203.0.113.10")
	k := newKeeper("n2", arp.Quick(), map[netip.Addr]Stored{vip: {Generation: 8, Owned: true}})
	out := k.step(time.Unix(1e9, 0), input{
		vips: []lb.VIP{{Addr: vip}}, healthy: func(netip.Addr) bool { return true }, carrier: true, evidence: true,
		members: []members.Member{{Name: "n1", VIPs: []members.VIP{{Addr: vip, Generation: 9, Owned: true, Healthy: true}}}},
	})
	if !out.forgot {
		t.Error("nothing is to be written")
	}
	if got := k.stored()[vip]; got.Owned || got.Generation != 9 {
		t.Errorf("stored %+v, want generation 9, not owned", got)
	}
}
