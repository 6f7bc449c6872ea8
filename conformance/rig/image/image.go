package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// An Image is what is to be written.
type Image struct {
	// Tags are its full names.
	Tags       []string
	Entrypoint []string
	Cmd        []string
	Env        []string
	Entries    []Entry
}

// An Entry is one file, link or folder of the layer. Folders above it need no entry.
type Entry struct {
	// Path is its absolute path in the image.
	Path string
	// Source is the file to copy; Link the target of a symbolic link; otherwise Data is the content, and a Path that
	// ends in a slash a folder.
	Source, Link, Data string
	// Mode is that of a file or folder; zero is 0755.
	Mode int64
}

// Write writes the image to file. The same entries give the same bytes.
func Write(file string, img Image) error {
	layer, err := os.CreateTemp(filepath.Dir(file), ".layer-*")
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	sum := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, sum), img.Entries); err != nil {
		return fmt.Errorf("write layer of image %s: %w", img.Tags[0], err)
	}
	config, err := buildConfig(img, "sha256:"+hex.EncodeToString(sum.Sum(nil)))
	if err != nil {
		return fmt.Errorf("write image %s: %w", img.Tags[0], err)
	}
	out, err := os.CreateTemp(filepath.Dir(file), ".image-*")
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err := writeArchive(out, img.Tags, config, layer); err != nil {
		return fmt.Errorf("write image %s: %w", img.Tags[0], err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write image %s: %w", img.Tags[0], err)
	}
	return os.Rename(out.Name(), file)
}

func buildConfig(img Image, diffID string) ([]byte, error) {
	return json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": img.Entrypoint, "Cmd": img.Cmd, "Env": img.Env, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diffID}},
	})
}

func writeArchive(w io.Writer, tags []string, config []byte, layer *os.File) error {
	sum := sha256.Sum256(config)
	name := hex.EncodeToString(sum[:]) + ".json"
	manifest, err := json.Marshal([]map[string]any{{"Config": name, "RepoTags": tags, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		size int64
		r    io.Reader
	}{
		{"manifest.json", int64(len(manifest)), bytes.NewReader(manifest)},
		{name, int64(len(config)), bytes.NewReader(config)},
		{"layer.tar", size, layer},
	} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: f.size, Mode: 0o644}); err != nil {
			return err
		}
		if _, err := io.Copy(tw, f.r); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeLayer(w io.Writer, entries []Entry) error {
	tw := tar.NewWriter(w)
	made := map[string]bool{}
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	for _, e := range sorted {
		if err := writeFolders(tw, made, e); err != nil {
			return err
		}
		if err := writeEntry(tw, e); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return tw.Close()
}

// writeFolders writes the folders above an entry, and the entry itself if it is one.
func writeFolders(tw *tar.Writer, made map[string]bool, e Entry) error {
	parts := strings.Split(strings.Trim(e.Path, "/"), "/")
	if !strings.HasSuffix(e.Path, "/") {
		parts = parts[:len(parts)-1]
	}
	for i := range parts {
		dir := strings.Join(parts[:i+1], "/") + "/"
		if made[dir] {
			continue
		}
		made[dir] = true
		mode := int64(0o755)
		if "/"+dir == e.Path && e.Mode != 0 {
			mode = e.Mode
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: mode}); err != nil {
			return err
		}
	}
	return nil
}

func writeEntry(tw *tar.Writer, e Entry) error {
	name := strings.TrimPrefix(e.Path, "/")
	mode := e.Mode
	if mode == 0 {
		mode = 0o755
	}
	switch {
	case strings.HasSuffix(e.Path, "/"):
		return nil
	case e.Link != "":
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: e.Link, Mode: 0o777})
	case e.Source == "":
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(e.Data)), Mode: mode}); err != nil {
			return err
		}
		_, err := io.WriteString(tw, e.Data)
		return err
	}
	f, err := os.Open(e.Source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: mode}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// Tags are the names of an image in the format of "docker save".
func Tags(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	defer f.Close()
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err != nil {
			return nil, fmt.Errorf("read image %s: find manifest.json: %w", file, err)
		}
		if h.Name != "manifest.json" {
			continue
		}
		var manifest []struct{ RepoTags []string }
		if err := json.NewDecoder(tr).Decode(&manifest); err != nil {
			return nil, fmt.Errorf("read image %s: %w", file, err)
		}
		var out []string
		for _, m := range manifest {
			out = append(out, m.RepoTags...)
		}
		return out, nil
	}
}
