package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"hythe.dev/hythe/internal/kube/decode"
	"hythe.dev/hythe/internal/model"
)

const (
	// settle is how long a folder must be quiet before it is read: an editor writes a file in several steps.
	settle = 20 * time.Millisecond
	// settleMax bounds the wait when a folder never gets quiet.
	settleMax = 200 * time.Millisecond
	// resync is how often the folders are compared without a notification, for file systems that send none.
	resync = 5 * time.Second
	// emptied is how long a file may be empty before that is believed: who writes a file in place empties it first.
	emptied = time.Second
)

// Load reads files, folders (with their subfolders) and "-" (standard input) once. What cannot be read is a
// Problem in the Snapshot; the error is for paths that do not exist.
func Load(paths ...string) (*model.Snapshot, error) {
	var documents []document
	for _, path := range paths {
		if path == "-" {
			data, err := io.ReadAll(os.Stdin)
			if err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			documents = append(documents, decodeFile("standard input", data))
			continue
		}
		files, err := manifestFiles(path)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, fmt.Errorf("read manifests: %w", err)
			}
			documents = append(documents, decodeFile(f, data))
		}
	}
	return assemble(documents), nil
}

func decodeFile(name string, data []byte) document {
	objects, problems := decode.Documents(name, data)
	return document{name: name, objects: objects, problems: problems}
}

// manifestFiles lists the manifest files at path, sorted. A path that is itself a file is taken whatever its
// name; in folders names must end in .yaml, .yml or .json and not start with a dot.
func manifestFiles(path string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && p != path
		switch {
		case d.IsDir() && hidden:
			return filepath.SkipDir
		case d.IsDir(), hidden:
			return nil
		case p == path, slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(p)):
			files = append(files, p)
		}
		return nil
	})
	slices.Sort(files)
	return files, err
}

// Files watches a manifests folder and a state folder.
type Files struct {
	layers []*layer
	log    *slog.Logger
	// emptied is how long a file may be empty before that is believed. Not to be changed after Run.
	emptied time.Duration
}

// NewFiles makes a source of the two folders. Nothing is read before Run. An empty state folder name means that
// there is none.
func NewFiles(manifests, state string, log *slog.Logger) *Files {
	f := &Files{log: log, emptied: emptied}
	for _, dir := range []string{manifests, state} {
		if dir != "" {
			f.layers = append(f.layers, &layer{dir: dir, files: map[string]*file{}})
		}
	}
	return f
}

// StatusFile is the file of the state folder that holds the status of objects. It is for people: nobody reads
// it back, since its objects are not whole.
const StatusFile = "status.yaml"

// A layer is one folder.
type layer struct {
	dir   string
	files map[string]*file
	// writing says that a file of it is being written, so that it must be read again soon.
	writing bool
}

// A file is the last good content of one file.
type file struct {
	stamp    stamp
	document document
}

// A stamp tells whether a file changed. The inode is in it since a rename may keep size and time.
type stamp struct {
	size  int64
	mtime time.Time
	inode uint64
}

// Run reads the folders, calls handle with the first Snapshot and then after each change, until ctx is done.
// handle must not block for long. A file that becomes unreadable keeps its last good content and is a Problem.
func (f *Files) Run(ctx context.Context, handle func(*model.Snapshot)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch manifests: %w", err)
	}
	defer watcher.Close()
	for first := true; ; first = false {
		f.watch(watcher)
		changed, err := f.read()
		if err != nil {
			if first {
				return err
			}
			f.log.Warn("manifests cannot be read, the last state stays", "error", err)
		}
		if first || changed {
			handle(f.snapshot())
		}
		if !f.wait(ctx, watcher) {
			return nil
		}
	}
}

// watch asks for notifications of all folders; asking again for a watched one changes nothing.
func (f *Files) watch(watcher *fsnotify.Watcher) {
	for _, l := range f.layers {
		_ = filepath.WalkDir(l.dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = watcher.Add(p)
			}
			if err != nil {
				f.log.Debug("no notifications, changes are seen later", "path", p, "error", err)
			}
			return nil
		})
	}
}

// wait returns when something may have changed and it is quiet again, or false when ctx is done.
func (f *Files) wait(ctx context.Context, watcher *fsnotify.Watcher) bool {
	again := resync
	if f.beingWritten() {
		again = f.emptied
	}
	resync := time.NewTimer(again)
	defer resync.Stop()
	var quiet, deadline <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-watcher.Errors: // events were lost: compare
			return true
		case <-resync.C:
			return true
		case <-quiet:
			return true
		case <-deadline:
			return true
		case event := <-watcher.Events:
			if event.Op == fsnotify.Chmod || strings.HasPrefix(filepath.Base(event.Name), ".") {
				continue
			}
			quiet = time.After(settle)
			if deadline == nil {
				deadline = time.After(settleMax)
			}
		}
	}
}

// read compares all files with what was read before and decodes those that changed.
func (f *Files) read() (changed bool, err error) {
	for _, l := range f.layers {
		c, e := l.read(f.emptied)
		changed = changed || c
		err = errors.Join(err, e)
	}
	return changed, err
}

func (l *layer) read(emptied time.Duration) (changed bool, err error) {
	l.writing = false
	names, err := manifestFiles(l.dir)
	if err != nil {
		return false, fmt.Errorf("read manifests: %w", err)
	}
	for _, name := range names {
		if filepath.Base(name) == StatusFile {
			continue
		}
		now, err := stampOf(name)
		if err != nil {
			continue // it was removed in the meantime: the next turn sees that
		}
		known := l.files[name]
		if known != nil && known.stamp == now {
			continue
		}
		if known.emptied(now, emptied) {
			l.writing = true
			continue
		}
		data, err := os.ReadFile(name)
		d := decodeFile(name, data)
		if err != nil {
			d.problems = []model.Problem{model.Problemf(model.ObjectRef{Kind: "File", Name: name}, "Unreadable",
				"%v; what it held before stays in use", err)}
		}
		l.files[name] = replace(known, now, d)
		changed = true
	}
	for name := range l.files {
		if !slices.Contains(names, name) {
			delete(l.files, name)
			changed = true
		}
	}
	return changed, nil
}

// emptied says that a file which had content has lost all of it less than within ago.
func (f *file) emptied(now stamp, within time.Duration) bool {
	return f != nil && f.stamp.size > 0 && now.size == 0 && time.Since(now.mtime) < within
}

// beingWritten says whether a file is to be read again soon.
func (f *Files) beingWritten() bool {
	return slices.ContainsFunc(f.layers, func(l *layer) bool { return l.writing })
}

// replace keeps the last good objects of a file of which some document cannot be read now.
func replace(known *file, now stamp, d document) *file {
	if known != nil && len(d.problems) > 0 {
		d.objects = known.document.objects
	}
	return &file{stamp: now, document: d}
}

func (f *Files) snapshot() *model.Snapshot {
	layers := make([][]document, 0, len(f.layers))
	for _, l := range f.layers {
		names := make([]string, 0, len(l.files))
		for name := range l.files {
			names = append(names, name)
		}
		slices.Sort(names)
		documents := make([]document, 0, len(names))
		for _, name := range names {
			documents = append(documents, l.files[name].document)
		}
		layers = append(layers, documents)
	}
	return assemble(layers...)
}
