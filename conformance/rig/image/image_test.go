package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLibraries(t *testing.T) {
	const ldd = `	linux-vdso.so.1 (0x00007f18f5b81000)
	libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f18f4f08000)
	libgone.so.2 => not found
	/lib64/ld-linux-x86-64.so.2 (0x00007f18f5b83000)
`
	want := []string{"/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"}
	if got := libraries(ldd); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func sample(t *testing.T) Image {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Image{
		Tags: []string{"example.com/a:1", "example.com/b:2"}, Entrypoint: []string{"/usr/bin/program"},
		Entries: []Entry{
			{Path: "/usr/bin/program", Source: source},
			{Path: "/tmp/", Mode: 0o1777},
			{Path: "/etc/hosts", Data: "127.0.0.1 localhost\n", Mode: 0o644},
			{Path: "/bin/sh", Link: "/usr/bin/program"},
		},
	}
}

// TestWrite reads the image as containerd does: the manifest names the configuration, which has the layer's sum.
func TestWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := Write(file, sample(t)); err != nil {
		t.Fatal(err)
	}
	files := readTar(t, file)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest: %v, %d entries", err, len(manifest))
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(files[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	layer := files[manifest[0].Layers[0]]
	sum := sha256.Sum256(layer)
	if want := "sha256:" + hex.EncodeToString(sum[:]); !slices.Equal(config.RootFS.DiffIDs, []string{want}) {
		t.Errorf("diff ids %q, want %q", config.RootFS.DiffIDs, want)
	}
	var names []string
	tr := tar.NewReader(bytes.NewReader(layer))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Name == "tmp/" && h.Mode != 0o1777 {
			t.Errorf("mode of tmp/ is %o", h.Mode)
		}
	}
	if want := []string{"bin/", "bin/sh", "etc/", "etc/hosts", "tmp/", "usr/", "usr/bin/", "usr/bin/program"}; !slices.Equal(names, want) {
		t.Errorf("layer has %q, want %q", names, want)
	}
	tags, err := Tags(file)
	if err != nil || !slices.Equal(tags, []string{"example.com/a:1", "example.com/b:2"}) {
		t.Errorf("tags %q, error %v", tags, err)
	}
}

func readTar(t *testing.T, file string) map[string][]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]byte{}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCached(t *testing.T) {
	dir, img := t.TempDir(), sample(t)
	first, err := Cached(dir, "a", img)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Cached(dir, "a", img); err != nil || again != first {
		t.Errorf("the same image again: %s, error %v, want %s", again, err, first)
	}
	img.Tags = []string{"example.com/c:3"}
	other, err := Cached(dir, "a", img)
	if err != nil || other == first {
		t.Errorf("another name: %s, error %v, want another file", other, err)
	}
	if _, err := os.Stat(first); err == nil {
		t.Error("the old image is kept")
	}
}
