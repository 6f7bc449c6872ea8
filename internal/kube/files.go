package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/kube/decode"
	"hythe.dev/hythe/internal/kube/seen"
	"hythe.dev/hythe/internal/kube/stamp"
	"hythe.dev/hythe/internal/model"
)

const (
	// settle is how long a folder must be quiet before it is read: an editor writes a file in several steps.
	settle = 20 * time.Millisecond
	// settleMax bounds the wait when a folder never gets quiet.
	settleMax = 200 * time.Millisecond
	// resync is how often the folders are compared without a notification, for file systems that send none.
	resync = 5 * time.Second
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
	// patience is stamp.Wait. Not to be changed after Run.
	patience time.Duration
}

// NewFiles makes a source of the two folders. Nothing is read before Run. An empty state folder name means that
// there is none.
func NewFiles(manifests, state string, log *slog.Logger) *Files {
	f := &Files{log: log, patience: stamp.Wait}
	f.layers = append(f.layers, &layer{dir: manifests, files: map[string]*file{}})
	if state != "" {
		f.layers = append(f.layers, &layer{dir: state, renamed: true, files: map[string]*file{}})
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
	// renamed says that it is the state folder: each file has one writer, which replaces it by rename.
	renamed bool
	// doubtful says that some file must be looked at again soon.
	doubtful bool
}

// A file is the last good content of one file.
type file struct {
	stamp    stamp.Stamp
	document document
	// doubt is about the state that the file is in now, while the document is that of an earlier one.
	doubt stamp.Doubt
	late  bool
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
		changed, err := f.read(time.Now())
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
	if f.doubtful() {
		again = f.patience
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
func (f *Files) read(now time.Time) (changed bool, err error) {
	for _, l := range f.layers {
		c, e := l.read(now, f.patience)
		changed = changed || c
		err = errors.Join(err, e)
	}
	return changed, err
}

func (l *layer) read(now time.Time, patience time.Duration) (changed bool, err error) {
	l.doubtful = false
	names, err := manifestFiles(l.dir)
	if err != nil {
		return false, fmt.Errorf("read manifests: %w", err)
	}
	for _, name := range names {
		if filepath.Base(name) != StatusFile {
			changed = l.readFile(name, now, patience) || changed
		}
	}
	for name, known := range l.files {
		if slices.Contains(names, name) {
			continue
		}
		if !l.renamed && !known.doubt.Over(stamp.Stamp{}, now, patience) {
			l.doubtful = true
			continue
		}
		if l.isSeen(name) {
			changed = known.lose(name) || changed
			continue
		}
		delete(l.files, name)
		changed = true
	}
	return changed, nil
}

// readFile reads one file if it changed and if its new state can be believed; see stamp. A file that took the place of
// another by rename is whole: it is believed at once, unless an object is missing. One that was made there may be written
// still, and hold all names but half of an object. A file of the state folder is always believed.
func (l *layer) readFile(name string, now time.Time, patience time.Duration) (changed bool) {
	is, renamed, err := stamp.Of(name)
	if err != nil {
		return false // it was removed in the meantime: the next turn sees that
	}
	known := l.files[name]
	if known == nil {
		l.files[name] = replace(nil, is, l.document(name))
		return true
	}
	if known.stamp == is {
		changed = known.late
		known.doubt, known.late = stamp.Doubt{}, false
		return changed
	}
	believed := l.renamed || known.doubt.Over(is, now, patience)
	if !believed && (!renamed || known.stamp.Identity == is.Identity) {
		return l.waitFor(known, now)
	}
	d := l.document(name)
	// A file of the state folder that was replaced meanwhile is whole in any case, and looked at again: an older one in its
	// place would tell the time of an object of before that has come anew.
	if after, _, err := stamp.Of(name); !l.renamed && (err != nil || after != is) || !believed && lacks(d, known.document) {
		return l.waitFor(known, now)
	}
	l.files[name] = replace(known, is, d)
	return true
}

func (l *layer) isSeen(name string) bool { return l.renamed && filepath.Base(name) == seen.File }

// lose leaves what a file held in use after the file went: nobody lets go of a host since its note is lost. It says whether
// that is new.
func (k *file) lose(name string) bool {
	if k.stamp == (stamp.Stamp{}) {
		return false
	}
	k.stamp = stamp.Stamp{}
	k.document.problems = []model.Problem{model.Problemf(model.ObjectRef{Kind: "File", Name: name}, "Missing",
		"It is gone; what it held before stays in use by those that run. The controller writes it again when it runs: see its Problems.")}
	return true
}

// waitFor leaves a file as it was known, and says whether its Problem is new.
func (l *layer) waitFor(known *file, now time.Time) (changed bool) {
	l.doubtful = true
	changed = !known.late && known.doubt.Late(now)
	known.late = known.late || changed
	return changed
}

// lacks says whether an object of the last good state is missing. Of a document with Problems the objects are not used.
func lacks(d, known document) bool {
	there := make(map[model.ObjectRef]bool, len(d.objects))
	for _, o := range d.objects {
		there[refOf(o)] = true
	}
	return len(d.problems) == 0 && slices.ContainsFunc(known.objects, func(o metav1.Object) bool { return !there[refOf(o)] })
}

// document reads one file.
func (l *layer) document(name string) document {
	data, err := os.ReadFile(name)
	var d document
	if l.isSeen(name) {
		d.name = name
		if err == nil {
			d.seen, err = seen.Parse(data)
		}
	} else {
		d = decodeFile(name, data)
	}
	if err != nil {
		d.problems = []model.Problem{model.Problemf(model.ObjectRef{Kind: "File", Name: name}, "Unreadable",
			"%v; what it held before stays in use", err)}
	}
	return d
}

// doubtful says whether a file is to be looked at again soon.
func (f *Files) doubtful() bool {
	return slices.ContainsFunc(f.layers, func(l *layer) bool { return l.doubtful })
}

// replace keeps the last good objects of a file of which some document cannot be read now.
func replace(known *file, now stamp.Stamp, d document) *file {
	if known != nil && len(d.problems) > 0 {
		d.objects, d.seen = known.document.objects, known.document.seen
	}
	return &file{stamp: now, document: d}
}

// snapshot puts all files together. A file that is in doubt comes before the others of its folder: an object that was
// moved out of it is used as it is where it was moved to.
func (f *Files) snapshot() *model.Snapshot {
	var layers [][]document
	for _, l := range f.layers {
		var doubtful, documents []document
		for _, name := range slices.Sorted(maps.Keys(l.files)) {
			known := l.files[name]
			d := known.document
			if known.late {
				d.problems = append(slices.Clip(d.problems), model.Problemf(model.ObjectRef{Kind: "File", Name: name}, "BeingWritten",
					"It keeps changing, and is read when it has been the same for %s; what it held before stays in use. Replace it by a rename.", f.patience))
			}
			if known.doubt == (stamp.Doubt{}) {
				documents = append(documents, d)
			} else {
				doubtful = append(doubtful, d)
			}
		}
		layers = append(layers, doubtful, documents)
	}
	return assemble(layers...)
}
