package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// repository is the checkout that this module is in.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// testOptions builds for this machine, into folders of the test.
func testOptions(t *testing.T, root string) options {
	t.Helper()
	return options{
		Root: root, Go: "go", Version: "v0.0.0-test", Revision: "0123456789", Created: time.Unix(1_700_000_000, 0).UTC(),
		Arches: []string{runtime.GOARCH}, Out: t.TempDir(), Cache: t.TempDir(),
	}
}

// needEnvoy skips in a fast run: Envoy and libc6 are fetched, and Hythe is built.
func needEnvoy(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds Hythe, and fetches Envoy and libc6")
	}
}

// copyTree copies what a build reads.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (strings.HasPrefix(relative, ".git") || relative == "bin" || relative == ".cache"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, relative), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, relative), raw, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSameTwice builds the same sources in two folders, with another umask, time zone and cache: every byte is the same.
// The Go build cache is shared, which -trimpath allows; with IMAGES_FRESH=1 the second build compiles all anew.
func TestSameTwice(t *testing.T) {
	needEnvoy(t)
	near := filepath.Join(t.TempDir(), "a")
	far := filepath.Join(t.TempDir(), "quite", "another", "place")
	copyTree(t, repository(t), near)
	copyTree(t, near, far)

	first := testOptions(t, near)
	one, err := build(first)
	if err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("GOFLAGS", "-tags=nothing")
	if os.Getenv("IMAGES_FRESH") == "1" {
		t.Setenv("GOCACHE", t.TempDir())
	}
	two, err := build(testOptions(t, far))
	if err != nil {
		t.Fatal(err)
	}
	if len(one) != 2 || len(two) != 2 {
		t.Fatalf("built %d and %d images, want 2 and 2", len(one), len(two))
	}
	for i := range one {
		if one[i].Digest != two[i].Digest {
			t.Errorf("%s is %s in one place and %s in another", one[i].Spec.Name, one[i].Digest, two[i].Digest)
		}
		if a, b := fileHash(t, one[i].File), fileHash(t, two[i].File); a != b {
			t.Errorf("archives of %s differ: %s, %s", one[i].Spec.Name, a, b)
		}
	}
	checkArchives(t, first, one)
}

// checkArchives reads archives and layouts back as docker load, containerd and skopeo would.
func checkArchives(t *testing.T, o options, all []built) {
	t.Helper()
	for _, b := range all {
		image, err := tarball.ImageFromPath(b.File, nil)
		if err != nil {
			t.Fatalf("read %s as docker-archive: %v", b.File, err)
		}
		if err := validate.Image(image); err != nil {
			t.Errorf("validate %s: %v", b.File, err)
		}
		checkIndex(t, b, o.Version)

		path, err := layout.FromPath(filepath.Join(o.Out, "oci", b.Spec.Short()))
		if err != nil {
			t.Fatal(err)
		}
		index, err := path.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil {
			t.Errorf("validate layout of %s: %v", b.Spec.Name, err)
		}
	}
}

// checkIndex looks at what containerd goes by: name and digest in index.json, and that all blobs are there.
func checkIndex(t *testing.T, b built, tag string) {
	t.Helper()
	files := readTar(t, b.File)
	var index v1.IndexManifest
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 1 {
		t.Fatalf("index.json of %s has %d manifests, want 1", b.File, len(index.Manifests))
	}
	d := index.Manifests[0]
	if got, want := d.Annotations["io.containerd.image.name"], b.Spec.Name+":"+tag; got != want {
		t.Errorf("containerd would call the image %q, want %q", got, want)
	}
	var m v1.Manifest
	if err := json.Unmarshal(files[blob(d.Digest)], &m); err != nil {
		t.Fatalf("read the manifest that index.json names: %v", err)
	}
	for _, part := range append(m.Layers, m.Config) {
		if int64(len(files[blob(part.Digest)])) != part.Size {
			t.Errorf("blob %s has %d bytes, want %d", part.Digest, len(files[blob(part.Digest)]), part.Size)
		}
	}
}

func readTar(t *testing.T, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := make(map[string][]byte)
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func fileHash(t *testing.T, name string) string {
	t.Helper()
	hash, err := file{Source: name}.hash()
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// TestTarOf packs the same files in another order, and finds each folder once, before what it holds.
func TestTarOf(t *testing.T) {
	a := file{Path: "usr/bin/a", Mode: 0o755, Data: []byte("a")}
	b := file{Path: "usr/b", Mode: 0o644, Data: []byte("b")}
	one, err := tarOf([]file{a, b})
	if err != nil {
		t.Fatal(err)
	}
	two, err := tarOf([]file{b, a})
	if err != nil {
		t.Fatal(err)
	}
	if string(one) != string(two) {
		t.Error("the order of the files is seen in the layer")
	}
	var names []string
	for r := tar.NewReader(strings.NewReader(string(one))); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
	}
	if got, want := strings.Join(names, " "), "usr/ usr/b usr/bin/ usr/bin/a"; got != want {
		t.Errorf("layer holds %q, want %q", got, want)
	}
}

// TestInspectHeader has a header for each thing that must not be in an image.
func TestInspectHeader(t *testing.T) {
	good := tar.Header{Typeflag: tar.TypeReg, Name: "x", Mode: 0o755, ModTime: fileTime}
	if err := inspectHeader(&good); err != nil {
		t.Errorf("a good file: %v", err)
	}
	bad := map[string]func(*tar.Header){
		"setuid":     func(h *tar.Header) { h.Mode = 0o4755 },
		"sticky":     func(h *tar.Header) { h.Mode = 0o1755 },
		"writable":   func(h *tar.Header) { h.Mode = 0o757 },
		"group":      func(h *tar.Header) { h.Mode = 0o775 },
		"owner":      func(h *tar.Header) { h.Uid = 1 },
		"time":       func(h *tar.Header) { h.ModTime = time.Unix(0, 0) },
		"device":     func(h *tar.Header) { h.Typeflag = tar.TypeChar },
		"link":       func(h *tar.Header) { h.Typeflag = tar.TypeSymlink },
		"capability": func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "x"} },
	}
	for name, change := range bad {
		h := good
		change(&h)
		if inspectHeader(&h) == nil {
			t.Errorf("%s is not noticed", name)
		}
	}
}

// TestInspectPrograms takes a library, then the loader, from a program that needs them.
func TestInspectPrograms(t *testing.T) {
	needEnvoy(t)
	in, err := gather(testOptions(t, repository(t)), runtime.GOARCH, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root := make(map[string][]byte)
	for _, f := range append(in.libc(), in.envoy()...) {
		if root[f.Path], err = f.bytes(); err != nil {
			t.Fatal(err)
		}
	}
	if err := inspectPrograms(root, runtime.GOARCH); err != nil {
		t.Fatalf("all is there, but: %v", err)
	}
	for name := range root {
		if !strings.HasPrefix(name, "lib") {
			continue
		}
		raw := root[name]
		delete(root, name)
		if inspectPrograms(root, runtime.GOARCH) == nil {
			t.Errorf("without /%s nothing is missed", name)
		}
		root[name] = raw
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if inspectPrograms(root, other) == nil {
		t.Error("programs for another architecture are not noticed")
	}
}

// TestPathOfThisMachine is found in a file of the image.
func TestPathOfThisMachine(t *testing.T) {
	raw, err := tarOf([]file{{Path: "x", Mode: 0o644, Data: []byte("built in /home/me/hythe/cmd")}})
	if err != nil {
		t.Fatal(err)
	}
	if inspectLayer(strings.NewReader(string(raw)), map[string][]byte{}, []string{"/home/me/hythe"}) == nil {
		t.Error("the path is not noticed")
	}
}

// TestPrune forgets an old layer and keeps one of today.
func TestPrune(t *testing.T) {
	o := options{Cache: t.TempDir()}
	if err := os.Mkdir(filepath.Join(o.Cache, "layers"), 0o755); err != nil {
		t.Fatal(err)
	}
	files := []file{{Path: "x", Mode: 0o644, Data: []byte("x")}}
	if _, err := o.layer(files); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(o.Cache, "layers", "old")
	long := time.Now().Add(-30 * 24 * time.Hour)
	if err := errors.Join(os.WriteFile(old, nil, 0o644), os.Chtimes(old, long, long), o.prune()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(old))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() == "old" {
		t.Errorf("after pruning there is %v, want the layer of today", entries)
	}
}

// TestJoinLicenses has each text once, with all that it is for, and refuses a module without any.
func TestJoinLicenses(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a/LICENSE": "one", "b/COPYING.md": "one", "c/LICENSE-MIT": "two"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	list := "a v1\t" + dir + "/a\nb v1\t" + dir + "/b\na v1\t" + dir + "/a\nc v2\t" + dir + "/c\n"
	out, err := joinLicenses(list)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "a v1\nb v1\n\none\n") || strings.Count(string(out), "one\n") != 1 || !strings.Contains(string(out), "c v2\n\ntwo\n") {
		t.Errorf("licenses are\n%s", out)
	}
	if _, err := joinLicenses("d v1\t" + t.TempDir()); err == nil {
		t.Error("a module without a license is not noticed")
	}
}
