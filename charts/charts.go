// Package charts holds the custom resource definitions and the roles of Hythe, for tests and the lab.
package charts

import (
	"embed"
	"fmt"
	"io/fs"
)

// CRDs returns the custom resource definitions, in hythe/crds.
func CRDs() embed.FS { return crds }

//go:embed hythe/crds/*.yaml
var crds embed.FS

// Definitions returns the custom resource definitions, each a YAML document.
func Definitions() ([][]byte, error) {
	files, err := fs.Glob(crds, "hythe/crds/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("find definitions: %w", err)
	}
	var out [][]byte
	for _, f := range files {
		data, err := crds.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		out = append(out, data)
	}
	return out, nil
}

// Roles returns what each component may do in the API, as YAML.
func Roles() []byte { return roles }

//go:embed hythe/files/roles.yaml
var roles []byte
