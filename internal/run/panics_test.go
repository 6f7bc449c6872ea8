package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

func testPanics(t *testing.T) *Panics {
	t.Helper()
	p, err := NewPanics(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// counts is what the counter says, by part.
func counts(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "hythe_panics_total" {
		t.Fatalf("%v, %v", families, err)
	}
	var out []string
	for _, m := range families[0].GetMetric() {
		out = append(out, fmt.Sprintf("%s %v", m.GetLabel()[0].GetValue(), m.GetCounter().GetValue()))
	}
	return strings.Join(out, ", ")
}

func fall(with any) *contain.Panic { return contain.Do(func() { panic(with) }) }

// TestPanicsAreCounted checks that each panic is counted, wherever in an error it is, and each place logged once.
func TestPanicsAreCounted(t *testing.T) {
	var log, page bytes.Buffer
	registry := prometheus.NewRegistry()
	p, err := NewPanics(registry, slog.New(slog.NewTextHandler(&log, nil)), "proxy", "overlay")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		one, two := fall("hunter2"), fall(1)
		_ = p.Err("overlay", errors.Join(errors.New("no"), fmt.Errorf("write a: %w", one), fmt.Errorf("write b: %w", errors.Join(two))))
		problems := model.Contain(model.ObjectRef{Kind: "Node", Name: "n1"}, "It is left out", func() { panic("hunter2") })
		p.Problems("overlay", append(problems, model.Problemf(model.ObjectRef{Kind: "Node", Name: "n2"}, "Other", "no panic")))
	}
	_ = p.Err("overlay", nil)
	if got, want := counts(t, registry), "overlay 9, proxy 0"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
	p.WriteText(&page)
	// Both falls of one line are of one place, as are those of Contain.
	if n := strings.Count(log.String(), "panic caught"); n < 2 || n > 3 || !strings.Contains(log.String(), "panics_test.go") {
		t.Errorf("log:\n%s", &log)
	}
	if !strings.Contains(page.String(), "overlay, 3 times, at first: Node n1: It is left out, by a fault of Hythe's") {
		t.Errorf("page:\n%s", &page)
	}
	if strings.Contains(page.String()+log.String(), "hunter2") {
		t.Error("the value of a panic is told")
	}
}

// TestSinkCountsPanics checks that a set that panics is counted, and tried again.
func TestSinkCountsPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		registry := prometheus.NewRegistry()
		panics, err := NewPanics(registry, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		latest := NewLatest[int]()
		done, times := make(chan error, 1), 0
		go func() {
			done <- Sink(ctx, latest, panics, "test", func(context.Context, int) error {
				if times++; times < 3 {
					panic("no")
				}
				return nil
			})
		}()
		latest.Put(1)
		time.Sleep(10 * Retry)
		cancel()
		if err := <-done; err != nil || times != 3 {
			t.Errorf("%v; called %d times, want 3", err, times)
		}
		if got, want := counts(t, registry), "test 2"; got != want {
			t.Errorf("counted %s, want %s", got, want)
		}
	})
}
