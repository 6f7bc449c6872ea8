package model_test

import (
	"fmt"
	"slices"
	"testing"

	"hythe.dev/hythe/internal/model"
)

func TestHistory(t *testing.T) {
	var h model.History
	key := func(i int) model.Key { return model.Key{Namespace: "a", Name: fmt.Sprint("s", i)} }
	note := func(other bool, services ...int) *model.Snapshot {
		var keys []model.Key
		for _, i := range services {
			keys = append(keys, key(i))
		}
		return h.Note(&model.Snapshot{}, keys, other)
	}
	check := func(before, now *model.Snapshot, ok bool, want ...int) {
		t.Helper()
		got, known := now.EndpointsSince(before)
		slices.SortFunc(got, model.CompareKeys)
		var keys []model.Key
		for _, i := range want {
			keys = append(keys, key(i))
		}
		if known != ok || !slices.Equal(got, keys) {
			t.Errorf("got %v %v, want %v %v", got, known, keys, ok)
		}
	}
	first := note(true)
	second, third := note(false, 1), note(false, 1, 2)
	check(first, first, true)
	check(first, second, true, 1)
	check(first, third, true, 1, 2)
	check(second, third, true, 1, 2)
	check(third, second, false)
	check(nil, second, false)
	check(&model.Snapshot{}, second, false)
	check(first, &model.Snapshot{}, false)
	node := note(true, 3)
	check(third, node, false)
	last := note(false, 4)
	check(third, last, false)
	check(node, last, true, 4)
	for range 20_000 {
		last = note(false, 5)
	}
	check(node, last, false)
	before := last
	last = note(false, 6)
	check(before, last, true, 6)

	// A Service that is another is more than its endpoints, and less than anything else.
	services := h.NoteServices(&model.Snapshot{}, []model.Key{key(1)}, []model.Key{key(7)}, false)
	check(last, services, false)
	got, known := services.ServicesSince(last)
	slices.SortFunc(got, model.CompareKeys)
	if !known || !slices.Equal(got, []model.Key{key(1), key(7)}) {
		t.Errorf("Services %v, %v", got, known)
	}
	check(services, note(false, 8), true, 8)
	if _, known := note(true).ServicesSince(services); known {
		t.Error("only Services changed, where something else did too")
	}
}
