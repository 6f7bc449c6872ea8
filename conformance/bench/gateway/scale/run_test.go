package scale

import (
	"testing"

	"hythe.dev/hythe/internal/testenv"
)

// TestRun runs all of it in small.
func TestRun(t *testing.T) {
	rows, err := Run(t.Context(), Options{Envoy: testenv.Envoy(t), Dir: t.TempDir(), Hosts: 50, OwnChains: 10, Changes: 3, Handshakes: 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Logf("%+v", r)
		if len(r.Values) == 0 || r.Values[0] <= 0 {
			t.Errorf("%s: %v", r.What, r.Values)
		}
	}
}
