package kubelet

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hythe.dev/hythe/internal/lab/cluster"
)

func newProcess(t *testing.T, command ...string) *Process {
	t.Helper()
	dir := t.TempDir()
	return &Process{
		Name: "test", Command: command, LogFile: filepath.Join(dir, "log"), PIDs: dir, Grace: 5 * time.Second,
		Log: slog.New(slog.DiscardHandler),
	}
}

// await polls until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func TestProcessIsStartedAgainAndHeld(t *testing.T) {
	p := newProcess(t, "sleep", "1000")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	running := func() bool { return p.Status().PID != 0 }
	await(t, "start", running)
	first := p.Status().PID
	if _, err := os.Stat(filepath.Join(p.PIDs, "log")); err != nil {
		t.Error(err)
	}
	if err := p.Kill(syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	await(t, "start again", func() bool { return running() && p.Status().PID != first })
	if err := p.Kill(syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	await(t, "end", func() bool { return !running() })
	for range 60 { // well beyond the back-off
		if time.Sleep(10 * time.Millisecond); running() {
			t.Fatal("a held process was started")
		}
	}
	p.Release()
	await(t, "start after release", running)
	cancel()
	<-ended
	if running() {
		t.Error("the process outlived its context")
	}
	if left, _ := filepath.Glob(filepath.Join(p.PIDs, "[0-9]*")); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
}

func TestProcessIsKilledAfterGrace(t *testing.T) {
	p := newProcess(t, "sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
	p.Grace = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	await(t, "output", func() bool {
		text, _ := os.ReadFile(p.LogFile)
		return strings.Contains(string(text), "up")
	})
	started := time.Now()
	cancel()
	<-ended
	if took := time.Since(started); took < p.Grace {
		t.Errorf("it ended after %s, before its grace period", took)
	}
}

func TestKillRecorded(t *testing.T) {
	p := newProcess(t, "sleep", "1000")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go p.Run(ctx)
	await(t, "start", func() bool { return p.Status().PID != 0 })
	// A record of another process that had the same pid once.
	other := filepath.Join(t.TempDir(), "pids")
	if err := os.MkdirAll(other, 0o755); err != nil {
		t.Fatal(err)
	}
	pid := p.Status().PID
	records, err := filepath.Glob(filepath.Join(p.PIDs, "[0-9]*"))
	if err != nil || len(records) != 1 {
		t.Fatalf("records %v, %v", records, err)
	}
	if err := os.WriteFile(filepath.Join(other, filepath.Base(records[0])), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := KillRecorded(other); err != nil || p.Status().PID != pid {
		t.Errorf("a process with another start time was killed (%v)", err)
	}
	if err := KillRecorded(p.PIDs); err != nil {
		t.Error(err)
	}
	await(t, "end", func() bool { return p.Status().PID != pid })
}

func TestPreStop(t *testing.T) {
	sleepAction := &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 2}}}
	exec := &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "sleep 7 && exit"}}}}
	for _, c := range []struct {
		lifecycle *corev1.Lifecycle
		want      time.Duration
	}{{nil, 0}, {sleepAction, 2 * time.Second}, {exec, 7 * time.Second}} {
		if got := preStop(corev1.Container{Lifecycle: c.lifecycle}); got != c.want {
			t.Errorf("preStop of %v is %s, want %s", c.lifecycle, got, c.want)
		}
	}
}

func TestHytheHook(t *testing.T) {
	hook := func(command ...string) corev1.Container {
		return corev1.Container{Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}}}}
	}
	if got := hytheHook(hook("/bin/hythe", "gateway", "drain")); !slices.Equal(got, []string{"gateway", "drain"}) {
		t.Errorf("arguments %q", got)
	}
	for _, c := range []corev1.Container{{}, hook("sleep", "5"), hook("hythe")} {
		if got := hytheHook(c); got != nil {
			t.Errorf("arguments %q of another hook", got)
		}
	}
}

func TestImageTag(t *testing.T) {
	for image, want := range map[string]string{
		"hythe.dev/echo:v1": "v1", "nginx": "latest", "localhost:5000/app": "latest", "localhost:5000/app:2.1": "2.1",
	} {
		if got := imageTag(image); got != want {
			t.Errorf("tag of %s is %s, want %s", image, got, want)
		}
	}
}

func TestChecks(t *testing.T) {
	httpGet := func(port intstr.IntOrString) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "ready", Port: port}}}
	}
	containers := []corev1.Container{
		{ReadinessProbe: httpGet(intstr.FromString("admin"))},
		{ReadinessProbe: httpGet(intstr.FromInt32(9999))}, // nobody listens there
		{},
	}
	ports := [][]corev1.ContainerPort{
		{{ContainerPort: 80}, {Name: "admin", ContainerPort: 81}},
		{{ContainerPort: 53, Protocol: corev1.ProtocolUDP}, {ContainerPort: 90}},
		nil,
	}
	r := &Running{pod: &cluster.Pod{Spec: corev1.PodSpec{Containers: containers}}}
	got := r.checks(ports)
	want := []check{{port: 81, path: "/ready"}, {port: 90}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("checks are %v, want %v", got, want)
	}
}
