package envoy_test

import (
	"strings"
	"testing"

	"hythe.dev/hythe/internal/envoy/envoytest"
)

// TestLongWildcard has a wildcard host as long as a name may be: its routes have a regular expression of that length.
func TestLongWildcard(t *testing.T) {
	r := envoytest.New(t, nil)
	label := strings.Repeat("a", 60)
	host := "*." + strings.Join([]string{label, label, label, label}, ".") + ".test"
	if _, status := r.Set(t, envoytest.Config(t, host)); len(status.Refused) > 0 {
		t.Errorf("Envoy refuses %v", status.Refused)
	}
}
