package testenv

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWallClock builds the program in testdata and sets its clock while it runs.
func TestWallClock(t *testing.T) {
	c := NewWallClock(t, "testdata/clock")
	program := filepath.Join(t.TempDir(), "clock")
	if out, err := exec.Command("go", "build", "-overlay", c.Overlay(), "-o", program, "./testdata/clock").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	c.Start(t, -time.Hour)
	cmd := exec.Command(program)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It prints the wall clock, and what a timer of its says it measured since it began, for each line.
	ask := func() (wall time.Time, since time.Duration) {
		t.Helper()
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(buf[:n]))
		if wall, err = time.Parse(time.RFC3339Nano, fields[0]); err != nil {
			t.Fatal(err)
		}
		if since, err = time.ParseDuration(fields[1]); err != nil {
			t.Fatal(err)
		}
		return wall, since
	}
	for _, off := range []time.Duration{-time.Hour, time.Hour, -24 * time.Hour, 50 * 365 * 24 * time.Hour, 0} {
		if off != -time.Hour {
			c.Set(t, cmd.Process.Pid, off)
		}
		before := time.Now()
		wall, since := ask()
		if after := time.Now(); wall.Before(before.Add(off)) || wall.After(after.Add(off)) {
			t.Errorf("set to %s the wall clock is %s, and the machine's %s", off, wall, after)
		}
		if since < 0 || since > time.Minute {
			t.Errorf("set to %s the monotonic clock is at %s", off, since)
		}
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
