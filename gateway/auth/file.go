package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"hythe.dev/hythe/internal/atomicfile"
)

// keepGone is how long an Entry stays in the file that the gateway wants no more: until then each Envoy knows that the
// route does not ask for it any more.
const keepGone = time.Minute

// ErrUnknown says that there is no such Entry.
var ErrUnknown = errors.New("no such entry")

// A Writer keeps the file. It is for one goroutine.
type Writer struct {
	Path string

	last   Table
	gone   map[string]time.Time
	loaded bool
}

// Set replaces the table in the file. What was in it and is no more stays for a minute.
func (w *Writer) Set(t Table, now time.Time) error {
	if !w.loaded { // what an earlier gateway wrote may still be asked for
		w.last, w.gone, w.loaded = Table{}, map[string]time.Time{}, true
		if old, err := parse(w.Path); err == nil {
			for name, raw := range old {
				if e, err := decode(raw); err == nil {
					w.last[name] = e
				}
			}
		}
	}
	next := maps.Clone(t)
	if next == nil {
		next = Table{}
	}
	for name, e := range w.last {
		if _, ok := t[name]; ok {
			delete(w.gone, name)
			continue
		}
		since, ok := w.gone[name]
		if !ok {
			since = now
			w.gone[name] = now
		}
		if now.Sub(since) < keepGone {
			next[name] = e
		} else {
			delete(w.gone, name)
		}
	}
	w.last = next
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("marshal table of auth: %w", err)
	}
	if info, err := os.Stat(w.Path); err == nil && info.Mode().Perm() == 0o600 {
		if old, err := os.ReadFile(w.Path); err == nil && bytes.Equal(old, data) {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(w.Path), 0o750); err != nil {
		return fmt.Errorf("make folder for table of auth: %w", err)
	}
	if err := atomicfile.WriteUnsynced(w.Path, data, 0o600); err != nil {
		return fmt.Errorf("write table of auth: %w", err)
	}
	return nil
}

func parse(path string) (map[string]json.RawMessage, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out map[string]json.RawMessage
	err = json.Unmarshal(data, &out)
	return out, err
}

// decode reads an Entry. One with a field that this version does not know is an error: it might ask for more.
func decode(raw json.RawMessage) (Entry, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var e Entry
	err := d.Decode(&e)
	return e, err
}

// A Reader reads the file whenever it was replaced. It is for any number of goroutines.
type Reader struct {
	Path string

	mu      sync.RWMutex
	seen    fs.FileInfo
	entries map[string]readEntry
	version uint64
}

type readEntry struct {
	entry *Entry
	err   error
}

// Entry returns an Entry as it is now, and a number that changes with the file. What it returns must not be changed.
func (r *Reader) Entry(name string) (*Entry, uint64, error) {
	info, err := os.Stat(r.Path)
	if err != nil {
		return nil, 0, fmt.Errorf("read table of auth: %w", err)
	}
	r.mu.RLock()
	e, ok := r.entries[name]
	version, fresh := r.version, same(r.seen, info)
	r.mu.RUnlock()
	if !fresh {
		if e, ok, version, err = r.read(name, info); err != nil {
			return nil, 0, err
		}
	}
	if !ok {
		return nil, version, ErrUnknown
	}
	return e.entry, version, e.err
}

// same says whether nothing was written in between. Each writing makes another file.
func same(a, b fs.FileInfo) bool {
	return a != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (r *Reader) read(name string, info fs.FileInfo) (readEntry, bool, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !same(r.seen, info) {
		raw, err := parse(r.Path) // of info or later; if later, the next question reads again
		if err != nil {
			return readEntry{}, false, 0, fmt.Errorf("read table of auth: %w", err)
		}
		entries := make(map[string]readEntry, len(raw))
		for name, data := range raw {
			e, err := decode(data)
			if err != nil {
				err = errors.New("an entry that this version cannot read") // the decoder's error might quote what it read
			}
			entries[name] = readEntry{&e, err}
		}
		r.entries, r.seen = entries, info
		r.version++
	}
	e, ok := r.entries[name]
	return e, ok, r.version, nil
}
