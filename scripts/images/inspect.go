package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// inspect looks at an image as it will be unpacked: nothing in it may be setuid, writable for others, or name one of the forbidden
// paths, and each program must find its loader and libraries. All that is wrong is returned.
func inspect(image v1.Image, arch string, forbidden []string) error {
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	var all []error
	root := make(map[string][]byte)
	for _, layer := range layers {
		content, err := layer.Uncompressed()
		if err != nil {
			return err
		}
		err = inspectLayer(content, root, forbidden)
		all = append(all, err, content.Close())
	}
	return errors.Join(append(all, inspectPrograms(root, arch))...)
}

// inspectLayer checks one layer and adds its files to root.
func inspectLayer(content io.Reader, root map[string][]byte, forbidden []string) error {
	var all []error
	r := tar.NewReader(content)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(all...)
		}
		if err != nil {
			return err
		}
		all = append(all, inspectHeader(h))
		raw, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		for _, p := range forbidden {
			if !released(h.Name) && bytes.Contains(raw, []byte(p)) {
				all = append(all, fmt.Errorf("/%s names the path %s of this machine", h.Name, p))
			}
		}
		if h.Typeflag == tar.TypeReg {
			if _, ok := root[h.Name]; ok {
				all = append(all, fmt.Errorf("/%s is there twice", h.Name))
			}
			root[h.Name] = raw
		}
	}
}

// released tells whether a program was built elsewhere: it cannot name a path of this machine, other than by chance.
func released(name string) bool {
	return strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "usr/local/bin/")
}

func inspectHeader(h *tar.Header) error {
	var all []error
	add := func(bad bool, what string) {
		if bad {
			all = append(all, fmt.Errorf("/%s %s", h.Name, what))
		}
	}
	add(h.Mode&0o7000 != 0, "is setuid, setgid or sticky")
	add(h.Mode&0o022 != 0, "is writable for others than its owner")
	add(h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "", "does not belong to root")
	add(!h.ModTime.Equal(fileTime), "has a time of its own")
	add(h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir, "is neither file nor folder")
	add(len(h.PAXRecords) > 0, "has extended attributes")
	return errors.Join(all...)
}

// inspectPrograms looks whether the loader will find everything.
func inspectPrograms(root map[string][]byte, arch string) error {
	var all []error
	for name, raw := range root {
		if !bytes.HasPrefix(raw, []byte("\x7fELF")) {
			continue
		}
		p, err := readProgram(bytes.NewReader(raw))
		if err != nil {
			all = append(all, fmt.Errorf("read /%s: %w", name, err))
			continue
		}
		if p.Machine != machines[arch] {
			all = append(all, fmt.Errorf("/%s is for %s", name, p.Machine))
		}
		if _, ok := root[strings.TrimPrefix(p.Interpreter, "/")]; p.Interpreter != "" && !ok {
			all = append(all, fmt.Errorf("/%s needs the loader %s, which is not there", name, p.Interpreter))
		}
		for _, library := range p.Needed {
			_, inLib := root[path.Join("lib", uname[arch]+"-linux-gnu", library)]
			if !inLib && !isLoader(root, library) {
				all = append(all, fmt.Errorf("/%s needs %s, which is not there", name, library))
			}
		}
	}
	return errors.Join(all...)
}

// isLoader tells whether a library is the loader itself, which is in memory already.
func isLoader(root map[string][]byte, library string) bool {
	_, inLib := root["lib/"+library]
	_, inLib64 := root["lib64/"+library]
	return strings.HasPrefix(library, "ld-linux") && (inLib || inLib64)
}
