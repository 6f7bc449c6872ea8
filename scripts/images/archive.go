package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// built is an image and where it is.
type built struct {
	Spec   spec
	Arch   string
	Image  v1.Image
	Digest v1.Hash
	File   string
}

// reference names an image in the form that containerd keeps.
func (b built) reference(tag string) string { return b.Spec.Name + ":" + tag }

// blob is the path of a blob (OCI image layout specification).
func blob(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// writeArchive writes one image as an archive that is both an OCI image layout, which containerd prefers, so that the
// image keeps its digest, and a docker-archive, by the manifest.json that names the same blobs.
func writeArchive(b built, tag string) error {
	err := writeFile(b.File, func(w io.Writer) error {
		a := &archive{tar: tar.NewWriter(w)}
		a.image(b, tag)
		return errors.Join(a.err, a.tar.Close())
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(b.File), err)
	}
	return nil
}

// An archive is a tar file in the making. After an error it writes nothing more.
type archive struct {
	tar  *tar.Writer
	seen []string
	err  error
}

func (a *archive) add(name string, size int64, content io.Reader) {
	if a.err != nil || slices.Contains(a.seen, name) {
		return
	}
	a.seen = append(a.seen, name)
	a.err = a.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: fileTime, Format: tar.FormatUSTAR,
	})
	if a.err == nil {
		_, a.err = io.Copy(a.tar, content)
	}
}

func (a *archive) json(name string, value any) {
	raw, err := json.Marshal(value)
	a.err = errors.Join(a.err, err)
	a.raw(name, raw)
}

func (a *archive) raw(name string, raw []byte) { a.add(name, int64(len(raw)), bytes.NewReader(raw)) }

// dockerManifest is an entry of manifest.json (Docker image specification v1.2, combined image JSON).
type dockerManifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

func (a *archive) image(b built, tag string) {
	config, err := b.Image.RawConfigFile()
	a.err = errors.Join(a.err, err)
	manifest, err := b.Image.RawManifest()
	a.err = errors.Join(a.err, err)
	parsed, err := b.Image.Manifest()
	a.err = errors.Join(a.err, err)
	layers, err := b.Image.Layers()
	a.err = errors.Join(a.err, err)
	if a.err != nil {
		return
	}
	docker := dockerManifest{Config: blob(parsed.Config.Digest), RepoTags: []string{b.reference(tag)}}
	a.json("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
	a.json("index.json", v1.IndexManifest{
		SchemaVersion: 2, MediaType: types.OCIImageIndex,
		Manifests: []v1.Descriptor{{
			MediaType: types.OCIManifestSchema1, Digest: b.Digest, Size: int64(len(manifest)),
			Platform: &v1.Platform{OS: "linux", Architecture: b.Arch},
			Annotations: map[string]string{
				"io.containerd.image.name":          b.reference(tag),
				"org.opencontainers.image.ref.name": tag,
			},
		}},
	})
	a.raw(blob(b.Digest), manifest)
	a.raw(blob(parsed.Config.Digest), config)
	for i, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			a.err = errors.Join(a.err, err)
			return
		}
		name := blob(parsed.Layers[i].Digest)
		a.add(name, parsed.Layers[i].Size, content)
		a.err = errors.Join(a.err, content.Close())
		docker.Layers = append(docker.Layers, name)
	}
	a.json("manifest.json", []dockerManifest{docker})
}

// writeLayouts writes, for each name, an OCI image layout with one index of all architectures.
func writeLayouts(o options, all []built) error {
	root := filepath.Join(o.Out, "oci")
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	for len(all) > 0 {
		name := all[0].Spec.Name
		var same []built
		same, all = split(all, name)
		if err := writeLayout(filepath.Join(root, same[0].Spec.Short()), o.Version, same); err != nil {
			return fmt.Errorf("write layout of %s: %w", name, err)
		}
	}
	return nil
}

func split(all []built, name string) (same, others []built) {
	for _, b := range all {
		if b.Spec.Name == name {
			same = append(same, b)
		} else {
			others = append(others, b)
		}
	}
	return same, others
}

func writeLayout(dir, tag string, same []built) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range same {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        b.Image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: b.Arch}},
		})
	}
	out, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return out.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag}))
}
