package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// fileTime is the time of all files: constant, so a layer depends on its content only.
var fileTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// layerFormat is part of the key under which layers are cached: raise it when the same files become another layer.
const layerFormat = "1"

func (f file) bytes() ([]byte, error) {
	if f.Data != nil {
		return f.Data, nil
	}
	return os.ReadFile(f.Source)
}

// newImage makes an image from its spec. Manifest and history depend on nothing else.
func newImage(o options, s spec, arch string) (v1.Image, error) {
	list, err := manifest(s)
	if err != nil {
		return nil, err
	}
	last := len(s.Layers) - 1
	layers := slices.Clone(s.Layers)
	layers[last] = append(slices.Clone(layers[last]), list)

	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, files := range layers {
		layer, err := o.layer(files)
		if err != nil {
			return nil, err
		}
		image, err = mutate.Append(image, mutate.Addendum{
			Layer:   layer,
			History: v1.History{Created: v1.Time{Time: o.Created}, CreatedBy: "images: " + files[0].Path},
		})
		if err != nil {
			return nil, err
		}
	}
	labels := map[string]string{"org.opencontainers.image.title": s.Title, "org.opencontainers.image.description": s.Description}
	for name, value := range s.Labels {
		labels[name] = value
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: o.Created}
	config.Config = v1.Config{
		User: user + ":" + user, Entrypoint: s.Entrypoint, WorkingDir: "/", Env: []string{"PATH=/usr/local/bin:/"}, Labels: labels,
	}
	return mutate.ConfigFile(image, config)
}

// manifest is the file that tells where each file of an image is from.
func manifest(s spec) (file, error) {
	files := slices.Concat(s.Layers...)
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.Path, b.Path) })
	b := bytes.NewBufferString("# SHA-256, file, where it is from\n")
	for _, f := range files {
		hash, err := f.hash()
		if err != nil {
			return file{}, err
		}
		fmt.Fprintf(b, "%s  /%s  %s\n", hash, f.Path, f.Origin)
	}
	return file{Path: "usr/share/hythe/manifest.txt", Mode: 0o644, Data: b.Bytes(), Origin: "Hythe"}, nil
}

// layer returns the layer of some files, from the cache if it was made before.
func (o options) layer(files []file) (v1.Layer, error) {
	raw, err := tarOf(files)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(o.Cache, "layers", fmt.Sprintf("%s-%x.tar.gz", layerFormat, sha256.Sum256(raw)))
	if _, err := os.Stat(name); err != nil {
		if err := writeFile(name, func(w io.Writer) error { return compress(w, raw) }); err != nil {
			return nil, fmt.Errorf("write layer: %w", err)
		}
	}
	// What was used today is kept by prune.
	now := time.Now()
	if err := os.Chtimes(name, now, now); err != nil {
		return nil, err
	}
	return tarball.LayerFromFile(name, tarball.WithMediaType(types.OCILayer))
}

// prune forgets layers that no build has used for a week: each commit makes new ones.
func (o options) prune() error {
	dir := filepath.Join(o.Cache, "layers")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var all []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < 7*24*time.Hour {
			continue
		}
		all = append(all, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(all...)
}

func compress(w io.Writer, raw []byte) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	_, err = z.Write(raw)
	return errors.Join(err, z.Close())
}

// tarOf packs files in order of their names, each folder before what it holds.
func tarOf(files []file) ([]byte, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.Path, b.Path) })
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	seen := make(map[string]bool)
	for _, f := range files {
		if err := writeDirs(w, path.Dir(f.Path), seen); err != nil {
			return nil, err
		}
		raw, err := f.bytes()
		if err != nil {
			return nil, err
		}
		err = w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: f.Path, Mode: f.Mode, Size: int64(len(raw)), ModTime: fileTime, Format: tar.FormatUSTAR,
		})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(raw); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// writeDirs writes a folder and those above it, unless they were written.
func writeDirs(w *tar.Writer, dir string, seen map[string]bool) error {
	if dir == "." || seen[dir] {
		return nil
	}
	if err := writeDirs(w, path.Dir(dir), seen); err != nil {
		return err
	}
	seen[dir] = true
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: fileTime, Format: tar.FormatUSTAR})
}

// writeFile replaces a file by rename, so that nobody sees half of it.
func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = errors.Join(write(f), f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
