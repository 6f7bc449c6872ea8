package run

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestSinkRetriesNewest checks that a failed value is tried again, and never after a newer one.
func TestSinkRetriesNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		latest := NewLatest[int]()
		var got []int
		var fail atomic.Bool
		fail.Store(true)
		done := make(chan error, 1)
		go func() {
			done <- Sink(ctx, latest, testPanics(t), "test", func(_ context.Context, v int) error {
				got = append(got, v)
				if fail.Load() {
					return errors.New("no")
				}
				return nil
			})
		}()
		latest.Put(1)
		latest.Put(2)
		synctest.Wait()
		time.Sleep(Retry + time.Millisecond) // one retry
		latest.Put(3)
		synctest.Wait()
		fail.Store(false)
		time.Sleep(10 * Retry)
		latest.Put(4)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []int{2, 2, 3, 3, 4}; !slices.Equal(got, want) {
			t.Errorf("values set: %v, want %v", got, want)
		}
	})
}

// TestSinkSurvivesPanic checks that a set that panics is one that failed.
func TestSinkSurvivesPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		latest := NewLatest[int]()
		var got []int
		done := make(chan error, 1)
		go func() {
			done <- Sink(ctx, latest, testPanics(t), "test", func(_ context.Context, v int) error {
				got = append(got, v)
				if len(got) == 1 {
					panic("at the first")
				}
				return nil
			})
		}()
		latest.Put(1)
		time.Sleep(Retry + time.Millisecond)
		latest.Put(2)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if want := []int{1, 1, 2}; !slices.Equal(got, want) {
			t.Errorf("values set: %v, want %v", got, want)
		}
	})
}
