package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/proxy"
)

func TestReadFrontends(t *testing.T) {
	testenv.NetNS(t)
	if got, err := readback.Frontends(); err != nil || got != nil {
		t.Fatalf("without a table: got %v, %v", got, err)
	}
	table := testTable(t)
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 5 {
		state := randomState(r)
		set1(t, table, state)
		got, err := readback.Frontends()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(frontendTexts(state.Frontends), frontendTexts(got)); d != "" {
			t.Fatalf("round %d (-want +got):\n%s", i, d)
		}
	}
}

// frontendTexts leaves out what the kernel does not hold.
func frontendTexts(frontends map[proxy.Frontend]proxy.Backends) map[string]string {
	text := func(list []netip.AddrPort) string {
		return fmt.Sprint(slices.SortedFunc(slices.Values(list), netip.AddrPort.Compare))
	}
	out := map[string]string{}
	for f, b := range frontends {
		if f.NodePort() || len(b.Inside)+len(b.Outside) > 0 {
			out[fmt.Sprint(f)] = "outside " + text(b.Outside) + " inside " + text(b.Inside)
		}
	}
	return out
}
