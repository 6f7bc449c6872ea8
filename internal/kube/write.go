package kube

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// WriteObjects writes objects as one YAML file into a state folder, by rename, so that a reader sees the old or
// the new content and never a part. A file that holds them already is left alone. It reports whether it wrote.
func WriteObjects[T any](path string, objects []T) (bool, error) {
	var out bytes.Buffer
	for _, o := range objects {
		data, err := yaml.Marshal(o)
		if err != nil {
			return false, fmt.Errorf("write %s: %w", path, err)
		}
		out.WriteString("---\n")
		out.Write(data)
	}
	return WriteFile(path, out.Bytes(), 0o640)
}

// WriteFile replaces a file by rename if its content differs and reports whether it wrote.
func WriteFile(path string, data []byte, mode os.FileMode) (bool, error) {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return false, nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // without effect after the rename
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	return true, nil
}
