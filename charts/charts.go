// Package charts holds the custom resource definitions and the roles of Hythe, for tests and the lab.
package charts

import "embed"

// CRDs returns the custom resource definitions, in hythe/crds.
func CRDs() embed.FS { return crds }

//go:embed hythe/crds/*.yaml
var crds embed.FS

// Roles returns what each component may do in the API, as YAML.
func Roles() []byte { return roles }

//go:embed hythe/templates/roles.yaml
var roles []byte
