package speaker

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
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
