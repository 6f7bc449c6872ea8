package nginx

import (
	"testing"

	"hythe.dev/hythe/internal/golden"
)

// TestDocs wants the page of all keys to be that of the table. Refresh it by -update.
func TestDocs(t *testing.T) {
	golden.File(t, "../../docs/nginx-annotations.md", Page())
}
