// Package golden compares what a test got with text that stands in testdata. With the flag -update the text is
// rewritten in place of being compared: read the diff.
//
//	testdata/*.txtar ── Archives ──> *Archive ── test ──> what came out ── Want ──> the same, or else
//
// A txtar archive (golang.org/x/tools/txtar) is one test case: its input files, and the text that is wanted.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the wanted text in testdata")

// An Archive is the file of one test case.
type Archive struct{ *txtar.Archive }

// Archives runs test as a subtest for each file that pattern matches. It fails if there is none.
func Archives(t *testing.T, pattern string, test func(*testing.T, *Archive)) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test cases in %s (error %v)", pattern, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), func(t *testing.T) {
			parsed, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			archive := &Archive{parsed}
			test(t, archive)
			if *update {
				write(t, path, txtar.Format(archive.Archive))
			}
		})
	}
}

// Data is the content of the named file, nil if there is none.
func (a *Archive) Data(name string) []byte {
	if f := a.find(name); f != nil {
		return f.Data
	}
	return nil
}

func (a *Archive) find(name string) *txtar.File {
	for i := range a.Files {
		if a.Files[i].Name == name {
			return &a.Files[i]
		}
	}
	return nil
}

// Want compares got with the named file of the archive. A file that is missing is added by -update.
func (a *Archive) Want(t *testing.T, name, got string) {
	t.Helper()
	f := a.find(name)
	switch {
	case *update && f == nil:
		a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(got)})
	case *update:
		f.Data = []byte(got)
	case f == nil:
		t.Errorf("the case has no %q; got:\n%s", name, got)
	default:
		differ(t, name, got, string(f.Data))
	}
}

// File compares got with the file at path.
func File(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		write(t, path, []byte(got))
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	differ(t, path, got, string(want))
}

func differ(t *testing.T, name, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
