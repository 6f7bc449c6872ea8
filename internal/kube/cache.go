package kube

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/decode"
	"hythe.dev/hythe/internal/model"
)

// A diskCache keeps the last objects of the API server on the node: a header and then each object as JSON, one a
// line. The time of the file is when it was last known to be true.
type diskCache struct {
	path   string
	header cacheHeader
}

// A cacheHeader says what a cache file holds.
type cacheHeader struct {
	Format  int      `json:"format"`
	Server  string   `json:"server"`
	Kinds   []string `json:"kinds"`
	Objects int      `json:"objects"`
}

// cacheFormat changes when a cache of before cannot be read any more.
const cacheFormat = 1

func newDiskCache(options APIOptions, server string) (*diskCache, error) {
	if err := os.MkdirAll(options.CacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("make cache folder: %w", err)
	}
	if slices.Contains(options.Kinds, "Secret") {
		// Without the Secrets a Snapshot would take certificates away, so there is no cache of the rest alone.
		if !options.CacheInMemory {
			return nil, fmt.Errorf("cache in %s: it would hold Secrets: use a folder in memory, and say so", options.CacheDir)
		}
		if err := inMemory(options.CacheDir); err != nil {
			return nil, err
		}
	}
	kinds := slices.Sorted(slices.Values(options.Kinds))
	return &diskCache{
		path:   filepath.Join(options.CacheDir, "snapshot.jsonl"),
		header: cacheHeader{Format: cacheFormat, Server: server, Kinds: kinds},
	}, nil
}

// store replaces the cache by rename.
func (c *diskCache) store(objects []metav1.Object, at time.Time) error {
	slices.SortFunc(objects, func(a, b metav1.Object) int {
		return cmp.Or(cmp.Compare(kindOf(a), kindOf(b)), model.CompareKeys(keyOf(a), keyOf(b)))
	})
	header := c.header
	header.Objects = len(objects)
	// Not in memory first: of a big cluster it has a hundred megabytes.
	err := atomicfile.WriteBy(c.path, 0o600, func(w io.Writer) error {
		out := bufio.NewWriterSize(w, 1<<16)
		encoder := json.NewEncoder(out)
		err := encoder.Encode(header)
		var line []byte
		for _, o := range objects {
			if s, ok := o.(*endpointSlice); ok {
				var bad error
				line, bad = appendSlice(line[:0], s)
				_, failed := out.Write(append(line, '\n'))
				err = errors.Join(err, bad, failed)
				continue
			}
			err = errors.Join(err, encoder.Encode(o))
		}
		return errors.Join(err, out.Flush())
	})
	if err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	return c.touch(at)
}

// touch notes that the cache was true at a time. It is no error if there is none yet.
func (c *diskCache) touch(at time.Time) error {
	if err := os.Chtimes(c.path, at, at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("date cache: %w", err)
	}
	return nil
}

// load reads the cache and when it was last true.
func (c *diskCache) load() ([]metav1.Object, time.Time, error) { return c.loadKinds(c.header.Kinds) }

// loadKinds reads what the cache has of some kinds.
func (c *diskCache) loadKinds(kinds []string) ([]metav1.Object, time.Time, error) {
	f, err := os.Open(c.path)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read cache: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read cache: %w", err)
	}
	decoder := json.NewDecoder(bufio.NewReader(f))
	var header cacheHeader
	if err := decoder.Decode(&header); err != nil {
		return nil, time.Time{}, fmt.Errorf("read cache %s: %w", c.path, err)
	}
	if err := c.header.takes(header); err != nil {
		return nil, time.Time{}, fmt.Errorf("read cache %s: %w", c.path, err)
	}
	objects := make([]metav1.Object, 0, header.Objects)
	for range header.Objects {
		object, err := decodeCached(decoder, kinds)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("read cache %s: %w", c.path, err)
		}
		if object != nil {
			objects = append(objects, object)
		}
	}
	return objects, info.ModTime(), nil
}

// takes says why a file with a header cannot be used, nil if it can. Another version of Hythe wrote it perhaps, with which a node
// starts without an API server as well: a kind that a cluster need not have, or that the other version did not read yet, may be
// missing, and is not known then; what is there of others is passed over. Where another kind is missing, all that follows from
// it would be taken away.
func (want cacheHeader) takes(has cacheHeader) error {
	lacks := slices.ContainsFunc(want.Kinds, func(kind string) bool {
		resource, _ := client.ResourceOf(kind)
		return !resource.Optional && !resource.Later && !slices.Contains(has.Kinds, kind)
	})
	if lacks || has.Format != want.Format || has.Server != want.Server {
		return fmt.Errorf("it is in format %d, of %s with %s, which are others now", has.Format, has.Server, strings.Join(has.Kinds, ", "))
	}
	return nil
}

// decodeCached returns the next object, nil if it is of none of the kinds.
func decodeCached(decoder *json.Decoder, kinds []string) (metav1.Object, error) {
	var line json.RawMessage
	if err := decoder.Decode(&line); err != nil {
		return nil, err
	}
	var meta metav1.TypeMeta
	if err := json.Unmarshal(line, &meta); err != nil {
		return nil, err
	}
	if !slices.Contains(kinds, meta.Kind) {
		return nil, nil
	}
	object, err := decode.New(meta.APIVersion, meta.Kind)
	if err != nil {
		return nil, err
	}
	if object == nil {
		return nil, fmt.Errorf("%s %s is no kind of ours", meta.APIVersion, meta.Kind)
	}
	if err := json.Unmarshal(line, object); err != nil {
		return nil, err
	}
	return compact(object), nil
}

// A shelf is what the cache is written from: the objects in use. Those who change it and who writes it are two goroutines.
type shelf struct {
	mu      sync.Mutex
	objects map[shelved]metav1.Object
	fresh   bool // since the last take
}

// A shelved is a place on a shelf.
type shelved struct {
	kind string
	key  model.Key
}

// put notes what changed.
func (s *shelf) put(changes []change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects == nil {
		s.objects = make(map[shelved]metav1.Object, len(changes))
	}
	for _, c := range changes {
		at := shelved{c.kind, c.key}
		if c.object == nil {
			delete(s.objects, at)
		} else {
			s.objects[at] = c.object
		}
	}
	s.fresh = true
}

// take returns all objects if there was something to note since it was called last.
func (s *shelf) take() ([]metav1.Object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.fresh {
		return nil, false
	}
	s.fresh = false
	return slices.AppendSeq(make([]metav1.Object, 0, len(s.objects)), maps.Values(s.objects)), true
}
