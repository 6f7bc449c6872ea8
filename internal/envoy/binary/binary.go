// Package binary finds the Envoy binary. It is apart from package envoy to be cheap to import.
package binary

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Find returns the path of an Envoy binary: what the variable ENVOY names, else the place where scripts/envoy.sh
// puts it, else what PATH has.
func Find() (string, error) {
	if path := os.Getenv("ENVOY"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("find Envoy by ENVOY: %w", err)
		}
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		path := filepath.Join(cache, "hythe", "envoy", "envoy", "_bin", "envoy")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		return "", fmt.Errorf("find Envoy: %w: run make envoy, or set ENVOY to its path", err)
	}
	return path, nil
}
