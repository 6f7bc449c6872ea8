package model

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// FuzzObjects edits Objects and a map alike. What an edit began with stays as it was.
func FuzzObjects(f *testing.F) {
	f.Add(uint64(1), uint16(300))
	f.Add(uint64(2), uint16(3))
	f.Fuzz(func(t *testing.T, seed uint64, size uint16) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // no secret
		want, got := map[Key]int{}, Objects[int]{}
		for step := range 30 {
			before, was := got, maps.Clone(want)
			e := got.Edit()
			for range random.IntN(20) {
				k := Key{Namespace: "n", Name: fmt.Sprint(random.IntN(int(size) + 1))}
				if random.IntN(3) == 0 {
					delete(want, k)
					e.Delete(k)
				} else {
					want[k] = step
					e.Set(k, step)
				}
			}
			got = e.Objects()
			check(t, got, want)
			check(t, before, was)
			if !reflect.DeepEqual(got, ObjectsOf(want)) {
				t.Fatalf("%v are not deeply the same as %v, made anew", got, want)
			}
			others := slices.SortedFunc(got.Others(before, func(a, b int) bool { return a == b }), CompareKeys)
			if differ := differing(want, was); !slices.Equal(others, differ) {
				t.Fatalf("%v differ, want %v", others, differ)
			}
		}
	})
}

func check(t *testing.T, got Objects[int], want map[Key]int) {
	t.Helper()
	if all := maps.Collect(got.All()); !maps.Equal(all, want) || got.Len() != len(want) || !slices.Equal(got.SortedKeys(), SortedKeys(want)) {
		t.Fatalf("got %v, %d, want %v", all, got.Len(), want)
	}
	for k, v := range want {
		if has, ok := got.Find(k); !ok || has != v || got.Get(k) != v {
			t.Fatalf("%v is %d, %v", k, has, ok)
		}
	}
	if v, ok := got.Find(Key{Name: "not there"}); ok || v != 0 {
		t.Fatalf("found what is not there: %d", v)
	}
}

func differing(a, b map[Key]int) []Key {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.DeleteFunc(SortedKeys(all), func(k Key) bool {
		v, ok := a[k]
		w, had := b[k]
		return ok == had && v == w
	})
}

// TestObjectsEditGoesOn changes after Objects, which stay as they were.
func TestObjectsEditGoesOn(t *testing.T) {
	k := Key{Name: "a"}
	e := Objects[int]{}.Edit()
	e.Set(k, 1)
	first := e.Objects()
	e.Set(k, 2)
	if first.Get(k) != 1 || e.Objects().Get(k) != 2 {
		t.Errorf("%d, then %d", first.Get(k), e.Objects().Get(k))
	}
	if !first.Same(first.Edit().Objects()) || first.Same(first.With(k, 1)) {
		t.Error("an edit that does nothing is another one, or one that does is not")
	}
}

// BenchmarkObjects is one change of 10,000 objects, beside a copy of a map of them.
func BenchmarkObjects(b *testing.B) {
	m := map[Key]*int{}
	for i := range 10_000 {
		m[Key{Namespace: "shop", Name: fmt.Sprint("service-", i)}] = new(int)
	}
	k := Key{Namespace: "shop", Name: "service-1"}
	o := ObjectsOf(m)
	b.Run("With", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o = o.With(k, new(int))
		}
	})
	b.Run("maps.Clone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m = maps.Clone(m)
			m[k] = new(int)
		}
	})
	b.Run("Get", func(b *testing.B) {
		for b.Loop() {
			_ = o.Get(k)
		}
	})
}
