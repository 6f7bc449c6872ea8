package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWrite(t *testing.T) {
	for name, write := range map[string]func(string, []byte, fs.FileMode) error{"Write": Write, "WriteUnsynced": WriteUnsynced} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "file")
			for _, step := range []struct {
				content string
				mode    fs.FileMode
			}{{"first", 0o600}, {"second", 0o644}, {"", 0o644}} {
				if err := write(path, []byte(step.content), step.mode); err != nil {
					t.Fatal(err)
				}
				check(t, path, step.content, step.mode)
			}
			checkNames(t, dir, "file")
		})
	}
}

// TestWriteFails says that a failure changes nothing and leaves nothing behind.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600); err == nil {
		t.Error("a file replaced a folder that is not empty")
	}
	checkNames(t, dir, "folder")
	if err := Write(filepath.Join(dir, "missing", "file"), nil, 0o600); err == nil {
		t.Error("no error for a folder that does not exist")
	}
}

// TestReaderKeepsOldFile says that the old file is replaced, not written over.
func TestReaderKeepsOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := Write(path, []byte("new content"), 0o600); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 20)
	if n, _ := reader.Read(buf); string(buf[:n]) != "old" {
		t.Errorf("the reader of the old file sees %q", buf[:n])
	}
}

func TestKeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, step := range []struct {
		content string
		mode    fs.FileMode
		want    bool
	}{{"a", 0o600, true}, {"a", 0o600, false}, {"b", 0o600, true}, {"b", 0o644, true}, {"b", 0o644, false}} {
		wrote, err := Keep(path, []byte(step.content), step.mode)
		if err != nil || wrote != step.want {
			t.Errorf("Keep %q %v: wrote %t, error %v, want %t", step.content, step.mode, wrote, err, step.want)
		}
		check(t, path, step.content, step.mode)
	}
}

// TestSweep has the temporary files of writers that were killed, and others with like names.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"file", ".file.123", ".file.4", ".file.12x", ".file.", ".other.123", ".file"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
	checkNames(t, dir, ".file", ".file.", ".file.12x", ".other.123", "file")
	f, err := os.CreateTemp(dir, prefix("file")+"*") // as replace does
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := Sweep(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
	checkNames(t, dir, ".file", ".file.", ".file.12x", ".other.123", "file")
	if err := Sweep(filepath.Join(dir, "missing", "file")); err == nil {
		t.Error("no error for a folder that does not exist")
	}
}

func check(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != content {
		t.Errorf("content %q, error %v, want %q", data, err, content)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
		t.Errorf("mode %v, error %v, want %v", info.Mode(), err, mode)
	}
}

func checkNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("the folder holds %q, want %q", names, want)
	}
}
