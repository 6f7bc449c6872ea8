package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/testenv"
)

// A contender is a controller of its own process, which competes for the Lease.
type contender struct {
	cmd *exec.Cmd
	log string
}

func contend(t *testing.T, hythe, name string, s *kubetest.Server) *contender {
	t.Helper()
	c := &contender{log: filepath.Join(t.TempDir(), name+".log")}
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.cmd = exec.Command(hythe, "controller", "--kubeconfig", s.Kubeconfig("admin", "system:masters"), "--admin", "unix:"+filepath.Join(t.TempDir(), "admin"))
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
		if t.Failed() {
			data, _ := os.ReadFile(c.log)
			t.Logf("%s:\n%s", name, data)
		}
	})
	return c
}

// said counts a line in the log.
func (c *contender) said(what string) int {
	data, _ := os.ReadFile(c.log)
	return bytes.Count(data, []byte(what))
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

// TestLeaderClock sets the wall clocks of the leader and of the other controller by days, in both directions: the Lease
// stays with the leader, who goes on to renew it, and the other one takes it when the leader is killed.
func TestLeaderClock(t *testing.T) {
	s := kubetest.Start(t)
	clock := testenv.NewWallClock(t, ".")
	s.InstallCRDs("../../charts/hythe/crds")
	s.CreateFiles("../../internal/kube/testdata/api")
	hythe := filepath.Join(t.TempDir(), "hythe")
	if out, err := exec.Command("go", "build", "-overlay", clock.Overlay(), "-o", hythe, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	const leads, follows = "this controller leads", "another controller leads"
	a := contend(t, hythe, "a", s)
	await(t, "a leads", func() bool { return a.said(leads) == 1 })
	b := contend(t, hythe, "b", s)
	await(t, "b follows", func() bool { return b.said(follows) == 1 })
	const day = 24 * time.Hour
	for _, off := range []time.Duration{-day, day} {
		clock.Set(t, a.cmd.Process.Pid, off)
		clock.Set(t, b.cmd.Process.Pid, -off)
		// Longer than a Lease lasts. Nothing is to happen in this time, so there is nothing to wait for.
		time.Sleep(18 * time.Second)
		if a.said(leads) != 1 || a.said(follows) != 0 || b.said(leads) != 0 {
			t.Fatalf("the Lease changed hands when the clock of the leader was set by %s, and that of the other by %s", off, -off)
		}
		renewed := s.Get("coordination.k8s.io/v1", "Lease", "hythe-system", "hythe-controller").Object["spec"].(map[string]any)["renewTime"].(string)
		if want := time.Now().Add(off).UTC().Format("2006-01-02T"); !strings.HasPrefix(renewed, want) {
			t.Errorf("the leader, whose clock is %s off, renewed the Lease at %s", off, renewed)
		}
	}
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "b leads after a", func() bool { return b.said(leads) == 1 })
}
