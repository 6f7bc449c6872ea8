package stamp

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func of(t *testing.T, path string) Stamp {
	t.Helper()
	s, _, err := Of(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	put(t, path, "long")
	before := of(t, path)
	put(t, path, "")
	if after := of(t, path); after.Identity != before.Identity || after == before {
		t.Errorf("it was %+v and is %+v: want another state of the same file", before, after)
	}
}

// TestReusedInode replaces a file until its inode comes again, as file systems do it soon.
func TestReusedInode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	put(t, path, "first")
	first := of(t, path)
	if first.Born.IsZero() {
		t.Skip("this file system knows no time of birth")
	}
	for range 1000 {
		put(t, path+".new", "other")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		is := of(t, path)
		if is.Identity == first.Identity {
			t.Fatalf("another file has the identity %+v", is.Identity)
		}
		if is.Inode == first.Inode {
			return
		}
	}
	t.Skip("this file system gives no inode twice")
}

// TestRenamed: only what was renamed looks so. A rename shows when the kernel's clock ticked since the last write.
func TestRenamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 100 {
		if _, err := file.WriteString("piece\n"); err != nil {
			t.Fatal(err)
		}
		if _, renamed, err := Of(path); err != nil || renamed {
			t.Fatalf("a file that is being written looks renamed (error %v)", err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := errors.Join(os.Rename(path, path+".new"), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
		if _, renamed, err := Of(path); err != nil || renamed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a file that was renamed does not look so")
		}
	}
}

func TestOver(t *testing.T) {
	var d Doubt
	now := time.Now()
	a, b := Stamp{Size: 1}, Stamp{Size: 2}
	for _, step := range []struct {
		after time.Duration
		stamp Stamp
		want  bool
	}{
		{0, a, false}, {Wait / 2, a, false}, {Wait / 2, b, false}, {Wait / 2, b, false}, {Wait / 2, b, true}, {0, a, false}, {Wait, a, true},
	} {
		now = now.Add(step.after)
		if is := d.Over(step.stamp, now, Wait); is != step.want {
			t.Errorf("%+v: %v", step, is)
		}
	}
	if d.Late(now) || !d.Late(now.Add(Late)) {
		t.Error("late at the wrong time")
	}
}
