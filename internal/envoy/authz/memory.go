package authz

import (
	"container/list"
	"sync"
	"time"
)

const (
	// mostAnswers and mostAnswerBytes bound what servers' answers take of the memory.
	mostAnswers, mostAnswerBytes = 10_000, 16 << 20
	// mostRight is how many passwords are remembered that were right, each by its hash.
	mostRight, rightBytes = 10_000, 32
	// rightFor is how long they are believed: then the next request compares again.
	rightFor = 10 * time.Minute
)

// A key is a hash of what was asked.
type key [32]byte

// A memory remembers what was found out, for a time, and forgets first what was not used for longest.
type memory[V any] struct {
	mu              sync.Mutex
	byKey           map[key]*list.Element
	order           list.List // the last used first
	most, mostBytes int
	bytes           int
}

type remembered[V any] struct {
	key   key
	value V
	size  int
	until time.Time
}

func newMemory[V any](most, bytes int) *memory[V] {
	return &memory[V]{byKey: map[key]*list.Element{}, most: most, mostBytes: bytes}
}

func (m *memory[V]) get(k key, now time.Time) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.byKey[k]
	if !ok {
		return v, false
	}
	r := e.Value.(remembered[V])
	if !now.Before(r.until) {
		m.forget(e)
		return v, false
	}
	m.order.MoveToFront(e)
	return r.value, true
}

// put remembers a value of a size in bytes. One that is larger than a hundredth of all is not.
func (m *memory[V]) put(k key, v V, size int, until time.Time) {
	if size > m.mostBytes/100 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.byKey[k]; ok {
		m.forget(e)
	}
	m.byKey[k] = m.order.PushFront(remembered[V]{k, v, size, until})
	m.bytes += size
	for len(m.byKey) > m.most || m.bytes > m.mostBytes {
		m.forget(m.order.Back())
	}
}

func (m *memory[V]) forget(e *list.Element) {
	r := e.Value.(remembered[V])
	m.order.Remove(e)
	delete(m.byKey, r.key)
	m.bytes -= r.size
}
