package nft

import (
	"encoding/binary"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
)

// generation is the number of the last transaction in the namespace (NFTA_GEN_ID).
func generation(t *testing.T) (id uint32) {
	t.Helper()
	c, err := nfnetlink.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	messages, err := c.Execute(request(unix.NFT_MSG_GETGEN, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if len(m.Data) <= 4 {
			continue
		}
		attributes, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range attributes {
			if a.Type == unix.NFTA_GEN_ID {
				id = binary.BigEndian.Uint32(a.Data)
			}
		}
	}
	return id
}

// An agent that is started again, where nothing changed, has one transaction: it becomes the owner of the table. Where
// tables have no owner it has none.
func TestRestartWritesNothing(t *testing.T) {
	for name, options := range map[string][]Option{"owner": nil, "no owner": {WithoutOwner()}} {
		t.Run(name, func(t *testing.T) {
			testenv.NetNS(t)
			before := testTable(t, options...)
			s := services(5)
			set1(t, before, s)
			if err := before.Close(); err != nil {
				t.Fatal(err)
			}
			was := generation(t)
			after := testTable(t, options...)
			set1(t, after, s)
			want := was
			if !after.plain {
				want++
			}
			if is := generation(t); is != want {
				t.Errorf("generation %d after a restart, want %d", is, want)
			}
			if n := value(after.metrics.changes); n != 0 {
				t.Errorf("%v elements were written", n)
			}
		})
	}
}
