// Package examples holds the example manifests, so that the lab has them wherever it is started.
package examples

import "embed"

// Files returns the manifests of this folder.
func Files() embed.FS { return files }

//go:embed *.yaml
var files embed.FS
