// Package run holds the few loops that all processes share: latest-wins channels, retries, the admin server.
package run

import (
	"context"
	"sync"
	"time"

	"hythe.dev/hythe/internal/contain"
)

// A Latest hands the newest value to one reader; what the reader did not fetch in time is replaced. A slow
// sink therefore never delays its source, and never works through a queue of the past.
type Latest[T any] struct {
	mu    sync.Mutex
	value T
	full  bool
	ready chan struct{}
}

// NewLatest makes an empty Latest.
func NewLatest[T any]() *Latest[T] {
	return &Latest[T]{ready: make(chan struct{}, 1)}
}

// Put replaces the waiting value. It never blocks.
func (l *Latest[T]) Put(v T) {
	l.mu.Lock()
	l.value, l.full = v, true
	l.mu.Unlock()
	Wake(l.ready)
}

// Ready is readable when there may be a value to Take.
func (l *Latest[T]) Ready() <-chan struct{} { return l.ready }

// Take returns the waiting value, or false if there is none since the last Take.
func (l *Latest[T]) Take() (T, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, ok := l.value, l.full
	var zero T
	l.value, l.full = zero, false
	return v, ok
}

// Wake makes a channel of capacity 1 readable, if it is not yet. It never blocks: one signal stands for all that were
// given since it was read last.
func Wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Retry is how long Sink waits before it tries again what failed.
const Retry = time.Second

// Sink calls set with each newest value until ctx is done. A value whose set failed is tried again after Retry,
// unless a newer one came. set reports its own errors; it must be safe to repeat. One that panics has failed. panics takes
// note, under the name of part, of that and of those that set caught and returns.
func Sink[T any](ctx context.Context, latest *Latest[T], panics *Panics, part string, set func(context.Context, T) error) error {
	var value T
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-latest.Ready():
			v, ok := latest.Take()
			if !ok {
				continue
			}
			value = v
		case <-again:
		}
		again = nil
		err := contain.Call(func() error { return set(ctx, value) })
		if panics.Err(part, err) != nil {
			again = time.After(Retry)
		}
	}
}
