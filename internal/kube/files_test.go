package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/kube/seen"
	"hythe.dev/hythe/internal/kube/stamp"
	"hythe.dev/hythe/internal/model"
)

// manifest is a manifest of Services.
func manifest(names ...string) string {
	var out strings.Builder
	for _, name := range names {
		fmt.Fprintf(&out, "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: %s\nspec:\n  selector: {app: %[1]s}\n  ports:\n  - {name: http, port: 80}\n", name)
	}
	return out.String()
}

// A folder is a manifests and a state folder, read by a clock of the test's.
type folder struct {
	t                *testing.T
	manifests, state string
	files            *Files
	now              time.Time
}

func newFolder(t *testing.T) *folder {
	f := &folder{t: t, manifests: t.TempDir(), state: t.TempDir(), now: time.Now()}
	f.files = NewFiles(f.manifests, f.state, slog.New(slog.DiscardHandler))
	return f
}

// inPlace writes a file as an editor, cp or a shell does, without a rename.
func (f *folder) inPlace(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.manifests, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) rename(name, text string) {
	f.t.Helper()
	rename(f.t, filepath.Join(f.manifests, name), text)
}

// rename replaces a file by one whose rename shows: the kernel's clock ticked since it was written.
func rename(t *testing.T, path, text string) {
	t.Helper()
	first, second := path+".a", path+".b"
	write(t, first, text)
	deadline := time.Now().Add(10 * time.Second)
	for renamed := false; !renamed; {
		err := errors.Join(os.Rename(first, second), os.Rename(second, first))
		if err == nil {
			_, renamed, err = stamp.Of(first)
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the rename of a file does not show (error %v)", err)
		}
	}
	if err := os.Rename(first, path); err != nil {
		t.Fatal(err)
	}
}

func (f *folder) remove(path string) {
	f.t.Helper()
	if err := os.Remove(path); err != nil {
		f.t.Fatal(err)
	}
}

// want looks after a while, and compares the names of Services and the reasons of Problems.
func (f *folder) want(after time.Duration, want string) {
	f.t.Helper()
	f.now = f.now.Add(after)
	if _, err := f.files.read(f.now); err != nil {
		f.t.Fatal(err)
	}
	s := f.files.snapshot()
	var is []string
	for _, key := range s.Services.SortedKeys() {
		is = append(is, key.Name)
	}
	for _, p := range s.Problems {
		is = append(is, p.Reason)
	}
	if text := strings.Join(is, " "); text != want {
		f.t.Errorf("it is %q, want %q", text, want)
	}
}

const half = stamp.Wait / 2

func TestCutShort(t *testing.T) {
	f := newFolder(t)
	f.inPlace("a.yaml", manifest("one", "two"))
	f.want(0, "one two")
	f.inPlace("a.yaml", manifest("one"))
	f.want(0, "one two")
	f.want(half, "one two")
	f.inPlace("a.yaml", manifest("one", "three")) // quiet begins again
	f.want(half, "one two")
	f.want(half, "one two")
	f.want(half, "one three")
}

// TestUnchangedInTheEnd: what is believed after all needs no new look.
func TestUnchangedInTheEnd(t *testing.T) {
	f := newFolder(t)
	f.inPlace("a.yaml", manifest("one", "two"))
	f.want(0, "one two")
	f.inPlace("a.yaml", "")
	f.want(0, "one two")
	f.inPlace("a.yaml", manifest("one", "two"))
	f.want(0, "one two")
	f.want(stamp.Wait, "one two")
	if f.files.doubtful() {
		t.Error("a file that was quiet for long is in doubt")
	}
}

func TestRenameIsBelieved(t *testing.T) {
	f := newFolder(t)
	f.rename("a.yaml", manifest("one", "two"))
	f.want(0, "one two")
	f.rename("a.yaml", manifest("one", "three", "two"))
	f.want(0, "one three two")
	f.rename("a.yaml", manifest("one"))
	f.want(0, "one three two")
	f.want(stamp.Wait, "one")
}

// TestRemovedAndMadeAgain is what git and tar do with a file.
func TestRemovedAndMadeAgain(t *testing.T) {
	f := newFolder(t)
	f.inPlace("a.yaml", manifest("one", "two"))
	f.want(0, "one two")
	f.remove(filepath.Join(f.manifests, "a.yaml"))
	f.want(0, "one two")
	f.inPlace("a.yaml", manifest("one"))
	f.want(half, "one two")
	f.inPlace("a.yaml", manifest("one", "two", "three"))
	f.want(half, "one two")
	f.want(stamp.Wait, "one three two")
	f.remove(filepath.Join(f.manifests, "a.yaml"))
	f.want(half, "one three two")
	f.want(half, "one three two")
	f.want(half, "")
}

// TestMadeAgainInPieces: a new file that names all objects may still be written, with half of the last one.
func TestMadeAgainInPieces(t *testing.T) {
	f := newFolder(t)
	path := filepath.Join(f.manifests, "a.yaml")
	whole := manifest("one", "two")
	f.inPlace("a.yaml", whole)
	f.want(0, "one two")
	f.remove(path)
	piece, rest := whole[:strings.LastIndex(whole, "  -")], whole[strings.LastIndex(whole, "  -"):]
	f.inPlace("a.yaml", piece)
	ports := func(after time.Duration, want int) {
		t.Helper()
		f.want(after, "one two")
		if is := len(f.files.snapshot().Services.Get(model.Key{Namespace: "default", Name: "two"}).Spec.Ports); is != want {
			t.Errorf("Service two has %d ports, want %d", is, want)
		}
	}
	ports(0, 1)
	ports(half, 1)
	f.inPlace("a.yaml", piece+rest+"  - {name: https, port: 443}\n")
	ports(half, 1)
	ports(half, 1)
	ports(half, 2)
}

// TestMoved: an object that is moved to another file is there once, all the time.
func TestMoved(t *testing.T) {
	f := newFolder(t)
	f.rename("a.yaml", manifest("one", "two"))
	f.want(0, "one two")
	f.rename("b.yaml", manifest("two"))
	f.rename("a.yaml", manifest("one"))
	f.want(0, "one two")
	f.want(stamp.Wait, "one two")
}

func TestKeepsChanging(t *testing.T) {
	f := newFolder(t)
	f.inPlace("a.yaml", manifest("one", "two"))
	f.want(0, "one two")
	for i := range stamp.Late/half + 1 {
		f.inPlace("a.yaml", manifest("one", fmt.Sprint("n", i)))
		f.want(half, "one two")
	}
	f.inPlace("a.yaml", manifest("one", "last"))
	f.want(half, "one two BeingWritten")
	f.want(stamp.Wait, "last one")
}

// TestStateIsBelieved: each file of the state folder has one writer, which renames.
func TestStateIsBelieved(t *testing.T) {
	f := newFolder(t)
	path := filepath.Join(f.state, "services.yaml")
	write(t, path, manifest("one", "two"))
	f.want(0, "one two")
	write(t, path, manifest("one"))
	f.want(0, "one")
	f.remove(path)
	f.want(0, "")
}

// TestSeenLost: who reads when objects came keeps that when the file goes or breaks, says so, and believes the next one.
func TestSeenLost(t *testing.T) {
	f := newFolder(t)
	f.rename("a.yaml", manifest("one"))
	path := filepath.Join(f.state, seen.File)
	want := func(year int, problems string) {
		t.Helper()
		f.want(0, "one"+problems)
		if is := f.files.snapshot().Services.Get(model.Key{Namespace: "default", Name: "one"}).CreationTimestamp.Year(); is != year {
			t.Errorf("it came in %d, want %d", is, year)
		}
	}
	write(t, path, "data: {Service.default.one: '2020-05-01T12:00:00Z'}")
	want(2020, "")
	f.remove(path)
	want(2020, " Missing")
	if changed, err := f.files.read(f.now); changed || err != nil {
		t.Errorf("it is told again: error %v", err)
	}
	write(t, path, "data: [")
	want(2020, " Unreadable")
	f.remove(path)
	want(2020, " Missing")
	write(t, path, "data: {Service.default.one: '2021-05-01T12:00:00Z'}")
	want(2021, "")
}

// TestTimesOfFiles: a file whose time is another century's is believed after the same wait.
func TestTimesOfFiles(t *testing.T) {
	for _, year := range []int{1970, 2100} {
		f := newFolder(t)
		f.inPlace("a.yaml", manifest("one", "two"))
		f.want(0, "one two")
		f.inPlace("a.yaml", manifest("one", "three", "two"))
		at := time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(filepath.Join(f.manifests, "a.yaml"), at, at); err != nil {
			t.Fatal(err)
		}
		f.want(0, "one two")
		f.want(stamp.Wait, "one three two")
	}
}

// TestSlowWriter writes a file of many objects in place, line by line. No snapshot lacks an object
// that is in each of its versions, or a part of one.
func TestSlowWriter(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	path := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(path, []byte(manifest(names...)), 0o600); err != nil {
		t.Fatal(err)
	}
	snapshots := make(chan *model.Snapshot, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	files := NewFiles(filepath.Dir(path), "", slog.New(slog.DiscardHandler))
	files.patience = 4 * stamp.Wait // a busy machine may stop the writer for a while
	go func() {
		done <- files.Run(ctx, func(s *model.Snapshot) { snapshots <- s })
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	snapshots <- <-snapshots // it began
	go writeSlowly(t, path, manifest(append([]string{"new"}, names...)...))
	for deadline := time.After(30 * time.Second); ; {
		select {
		case <-deadline:
			t.Fatal("the last version is not read")
		case s := <-snapshots:
			for _, name := range names {
				if service := s.Services.Get(model.Key{Namespace: "default", Name: name}); service == nil || len(service.Spec.Ports) == 0 {
					t.Errorf("a snapshot lacks Service %s, or a part of it: %v", name, service)
				}
			}
			if s.Services.Get(model.Key{Namespace: "default", Name: "new"}) != nil {
				return
			}
		}
	}
}

// writeSlowly writes a line each 30 ms: longer than the source waits for quiet in a folder. Nearly all pieces are valid YAML.
func writeSlowly(t *testing.T, path, text string) {
	out, err := os.Create(path)
	if err != nil {
		t.Error(err)
		return
	}
	for line := range strings.Lines(text) {
		if _, err := out.WriteString(line); err != nil {
			t.Error(err)
		}
		time.Sleep(30 * time.Millisecond)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
}
