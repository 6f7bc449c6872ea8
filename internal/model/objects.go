package model

import (
	"hash/maphash"
	"iter"
	"maps"
	"reflect"
	"slices"
)

// shards is how many maps the objects of a kind are in: with 10,000 a change copies one of 40, and the list of 256.
const shards = 256

// where tells the shard of a key. Go's maps have no order either.
var where = maphash.MakeSeed()

// Objects are the objects of one kind by key. It is a value that never changes: With and Without return another one, which
// shares with this one what they have in common, so that a change costs little however many objects there are. Zero is none.
type Objects[V any] struct {
	shards *[shards]map[Key]V // nil where there are no objects; so is each shard
	len    int
}

// ObjectsOf returns the objects of a map.
func ObjectsOf[V any](m map[Key]V) Objects[V] {
	e := Objects[V]{}.Edit()
	for k, v := range m {
		e.Set(k, v)
	}
	return e.Objects()
}

func shard(k Key) int { return int(maphash.Comparable(where, k) % shards) } //nolint:gosec // less than shards

// Find returns an object, and whether there is one of that key.
func (o Objects[V]) Find(k Key) (V, bool) {
	if o.shards == nil {
		var none V
		return none, false
	}
	v, ok := o.shards[shard(k)][k]
	return v, ok
}

// Get returns an object, zero if there is none of that key.
func (o Objects[V]) Get(k Key) V {
	v, _ := o.Find(k)
	return v
}

// Len is the number of objects.
func (o Objects[V]) Len() int { return o.len }

// All yields keys and objects, in no order.
func (o Objects[V]) All() iter.Seq2[Key, V] {
	return func(yield func(Key, V) bool) {
		if o.shards == nil {
			return
		}
		for _, m := range o.shards {
			for k, v := range m {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// Keys yields the keys, in no order.
func (o Objects[V]) Keys() iter.Seq[Key] {
	return func(yield func(Key) bool) {
		for k := range o.All() {
			if !yield(k) {
				return
			}
		}
	}
}

// Values yields the objects, in no order.
func (o Objects[V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range o.All() {
			if !yield(v) {
				return
			}
		}
	}
}

// SortedKeys are the keys ordered by namespace and name, so that Build functions are deterministic.
func (o Objects[V]) SortedKeys() []Key {
	keys := slices.AppendSeq(make([]Key, 0, o.len), o.Keys())
	slices.SortFunc(keys, CompareKeys)
	return keys
}

// Same says that both are the very same objects, as one was copied from the other. It costs nothing; false says nothing.
func (o Objects[V]) Same(other Objects[V]) bool { return o.shards == other.shards }

// Others yields the keys of which one of both has an object and the other none or another one. It passes over what both
// share: what it costs is in proportion to what was changed between them.
func (o Objects[V]) Others(other Objects[V], same func(a, b V) bool) iter.Seq[Key] {
	var none [shards]map[Key]V
	return func(yield func(Key) bool) {
		if o.Same(other) {
			return
		}
		mine, theirs := o.shards, other.shards
		if mine == nil {
			mine = &none
		}
		if theirs == nil {
			theirs = &none
		}
		for i := range shards {
			if !oneMap(mine[i], theirs[i]) && !others(mine[i], theirs[i], same, yield) {
				return
			}
		}
	}
}

// oneMap reports whether two shards are one and the same map, or both are none.
func oneMap[V any](a, b map[Key]V) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// others compares two shards, and is false if that was enough.
func others[V any](a, b map[Key]V, same func(a, b V) bool, yield func(Key) bool) bool {
	for k, v := range a {
		if w, ok := b[k]; (!ok || !same(v, w)) && !yield(k) {
			return false
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok && !yield(k) {
			return false
		}
	}
	return true
}

// With returns these objects and v under the key k, in the place of what is there.
func (o Objects[V]) With(k Key, v V) Objects[V] {
	e := o.Edit()
	e.Set(k, v)
	return e.Objects()
}

// Without returns these objects but that of a key.
func (o Objects[V]) Without(k Key) Objects[V] {
	e := o.Edit()
	e.Delete(k)
	return e.Objects()
}

// An ObjectsEdit changes some objects at once: each shard is copied once.
type ObjectsEdit[V any] struct {
	from, now Objects[V]
	own       [shards]bool
}

// Edit returns an edit of these objects, which stay as they are.
func (o Objects[V]) Edit() *ObjectsEdit[V] { return &ObjectsEdit[V]{from: o, now: o} }

// Get returns an object as the edit has left it, zero if there is none of that key.
func (e *ObjectsEdit[V]) Get(k Key) V { return e.now.Get(k) }

// Set puts an object under a key.
func (e *ObjectsEdit[V]) Set(k Key, v V) {
	m := e.shard(k)
	if _, has := m[k]; !has {
		e.now.len++
	}
	m[k] = v
}

// Delete takes the object of a key away.
func (e *ObjectsEdit[V]) Delete(k Key) {
	if _, has := e.now.Find(k); !has {
		return
	}
	delete(e.shard(k), k)
	e.now.len--
}

// Objects are the objects after the edit, which is over.
func (e *ObjectsEdit[V]) Objects() Objects[V] {
	if e.now.len == 0 {
		return Objects[V]{}
	}
	if e.now.shards != e.from.shards {
		for i, own := range e.own {
			if own && len(e.now.shards[i]) == 0 {
				e.now.shards[i] = nil
			}
		}
	}
	e.from, e.own = e.now, [shards]bool{} // another Set copies again
	return e.now
}

// shard is the map of a key, which is the edit's own.
func (e *ObjectsEdit[V]) shard(k Key) map[Key]V {
	if e.now.shards == e.from.shards {
		own := new([shards]map[Key]V)
		if e.now.shards != nil {
			*own = *e.now.shards
		}
		e.now.shards = own
	}
	i := shard(k)
	if e.own[i] {
		return e.now.shards[i]
	}
	e.own[i] = true
	if e.now.shards[i] == nil {
		e.now.shards[i] = map[Key]V{}
	} else {
		e.now.shards[i] = maps.Clone(e.now.shards[i])
	}
	return e.now.shards[i]
}
