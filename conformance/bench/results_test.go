package main

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestResultsAreResumable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	open := func(commit string) *results {
		t.Helper()
		r, err := openResults(path, commit)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	m := measurement{"full", "time, s", hythe, 1000, 3}
	if r := open("c1"); r.has("full", 1000, "") || r.add(m, []float64{3, 1, 2}) != nil || !r.has("full", 1000, "") {
		t.Fatal("a first row")
	}
	if r := open("c1"); !r.has("full", 1000, "") || r.has("full", 3000, "") || r.has("update", 1000, "") {
		t.Error("what is there is not known")
	}
	r := open("c2")
	if r.has("full", 1000, "") {
		t.Error("another commit's row counts")
	}
	if err := r.add(m, []float64{5}); err != nil {
		t.Fatal(err)
	}
	if text := r.table(); strings.Count(text, "| time, s |") != 1 || !strings.Contains(text, "| hythe | 5 |") || !strings.Contains(text, "c2") {
		t.Errorf("the table has not just the newest row:\n%s", text)
	}
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(strings.TrimSuffix(path, "jsonl") + "md"); err != nil {
		t.Error(err)
	}
}

// TestPartialRowsAreMeasuredAgain keeps the figures of what an error ended, but does not take them for the whole.
func TestPartialRowsAreMeasuredAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	b := &bench{results: &results{path: path, commit: "c1"}}
	values := map[measurement][]float64{{"update", "time, s", hythe, 1000, 3}: {1}}
	ended := errors.New("it ended")
	if err := b.addAll(values, ended); !errors.Is(err, ended) {
		t.Error(err)
	}
	var err error
	if b.results, err = openResults(path, "c1"); err != nil {
		t.Fatal(err)
	}
	if len(b.results.rows) != 1 || b.results.has("update", 1000, hythe) {
		t.Error("a partial row is lost, or counts")
	}
	if err := b.addAll(values, nil); err != nil {
		t.Fatal(err)
	}
	if !b.results.has("update", 1000, hythe) || !b.results.has("update", 1000, "") || b.results.has("update", 1000, nftables) {
		t.Error("a whole row does not count, or for others")
	}
}

// TestWithin does not wait for what does not end.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, forever := time.Now(), make(chan struct{})
		err := within(t.Context(), time.Minute, func(context.Context) error { <-forever; return nil })
		if err == nil || time.Since(begin) != time.Minute+grace {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		close(forever)
		failed := errors.New("it failed")
		if err := within(t.Context(), time.Minute, func(context.Context) error { return failed }); !errors.Is(err, failed) {
			t.Error(err)
		}
		if err := within(t.Context(), time.Minute, func(ctx context.Context) error { return nil }); err != nil {
			t.Error(err)
		}
	})
}

func TestGrowth(t *testing.T) {
	values := map[measurement][]float64{}
	for _, what := range []string{endpointUpdate, serviceUpdate} {
		values[measurement{"update", what, hythe, 100, 3}] = []float64{2}
		values[measurement{"update", what, hythe, 10_000, 3}] = []float64{3}
	}
	growth(values, 100, 10_000)
	m := measurement{"update", serviceUpdate + ": p99, times that of 100 Services", hythe, 10_000, 3}
	if got := values[m]; len(got) != 1 || got[0] != 1.5 {
		t.Error(got)
	}
}

func TestNewRow(t *testing.T) {
	var values []float64
	for i := 100; i >= 0; i-- {
		values = append(values, float64(i))
	}
	if r := newRow(measurement{}, values); r.Median != 50 || r.P10 != 10 || r.P90 != 90 || r.P99 != 99 || r.Count != 101 {
		t.Errorf("%+v", r)
	}
	if got := quantile([]float64{1, 2}, 0.5); got != 1.5 {
		t.Errorf("the median of 1 and 2 is %v", got)
	}
}

func TestSlope(t *testing.T) {
	var xs, ys []float64
	for _, n := range []float64{1000, 10_000, 100_000} {
		xs, ys = append(xs, math.Log(n)), append(ys, math.Log(0.001*math.Pow(n, 1.1)))
	}
	if got := slope(xs, ys); math.Abs(got-1.1) > 1e-9 {
		t.Errorf("exponent %v", got)
	}
}

// TestTurns has each subject first as often as any other.
func TestTurns(t *testing.T) {
	first := map[int]int{}
	for time := range 12 {
		one := turns(3, time)
		first[one[0]]++
		if slices.Sort(one); !slices.Equal(one, []int{0, 1, 2}) {
			t.Fatal(one)
		}
	}
	if first[0] != 4 || first[1] != 4 || first[2] != 4 {
		t.Error(first)
	}
}

// TestWorldHasNoAddressTwice holds for the biggest worlds that are measured.
func TestWorldHasNoAddressTwice(t *testing.T) {
	for _, w := range []world{{services: 100_000, endpoints: 3}, {services: 5000, endpoints: 50}} {
		seen := map[netip.Addr]bool{}
		for i := range w.services {
			for _, a := range append(w.addresses(i), clusterIP(i)) {
				if seen[a] {
					t.Fatalf("%s is there twice", a)
				}
				seen[a] = true
			}
		}
		if seen[endpoint(freshAddress)] || !netip.MustParsePrefix("10.96.0.0/12").Contains(clusterIP(w.services-1)) {
			t.Error("the addresses are not where they should be")
		}
	}
}
