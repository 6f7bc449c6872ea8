package kube

import (
	"bytes"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/atomicfile"
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
	return atomicfile.Keep(path, data, mode)
}
