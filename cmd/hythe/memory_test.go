package main

import "testing"

// TestGrowth says that a small heap may double and more, and that a big one stays small.
func TestGrowth(t *testing.T) {
	for live, want := range map[uint64]int{0: mostGrowth, 8 << 20: mostGrowth, 32 << 20: mostGrowth, 64 << 20: 100, 128 << 20: 50, 200 << 20: 32, 300 << 20: leastGrowth, 3 << 30: leastGrowth} {
		if got := growth(live); got != want {
			t.Errorf("%d MiB may grow by %d %%, want %d", live>>20, got, want)
		}
	}
}
