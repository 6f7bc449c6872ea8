package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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

// heard returns what all others hear of transactions in the namespace while f runs: "newtable hythe" for each message.
func heard(t *testing.T, f func()) []string {
	t.Helper()
	listener, err := nfnetlink.Listen(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	f()
	c, err := nfnetlink.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const last = "the-last-one"
	if err := c.Batch([]netlink.Message{nfnetlink.NewTable(last, "", 0), nfnetlink.DeleteTable(last)}); err != nil {
		t.Fatal(err)
	}
	if err := listener.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	names := map[uint16]string{unix.NFT_MSG_NEWTABLE: "newtable", unix.NFT_MSG_NEWGEN: "newgen"}
	var out []string
	for {
		messages, err := listener.Receive()
		if err != nil {
			t.Fatalf("%v, after %q", err, out)
		}
		for _, m := range messages {
			typ := uint16(m.Header.Type) & 0xff
			what := cmp.Or(names[typ], fmt.Sprint("type ", typ))
			if typ != unix.NFT_MSG_NEWGEN { // the first attribute of all else is the table
				attributes, err := netlink.UnmarshalAttributes(m.Data[4:])
				if err != nil {
					t.Fatal(err)
				}
				what += " " + strings.TrimRight(string(attributes[0].Data), "\x00")
			}
			if strings.HasSuffix(what, last) {
				return out
			}
			out = append(out, what)
		}
	}
}

// An agent that is started again, where nothing changed, writes no chain, rule, set or element. It becomes the owner of the
// table, which takes a transaction with the table's flags and nothing else. Where tables have no owner it writes nothing.
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
			var after *Table
			messages := heard(t, func() {
				after = testTable(t, options...)
				set1(t, after, s)
			})
			want, wantMessages := was+1, []string(nil) // the test's own
			if !after.plain {
				want, wantMessages = was+2, []string{"newtable hythe", "newgen"}
			}
			if !slices.Equal(messages, wantMessages) {
				t.Errorf("others hear of %q, want %q", messages, wantMessages)
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

// An agent that was away for an hour, in which much has changed, writes that and nothing that is right already. The table
// serves meanwhile, and is never without what stays.
func TestRestartAfterLong(t *testing.T) {
	for name, options := range map[string][]Option{"owner": nil, "no owner": {WithoutOwner()}} {
		t.Run(name, func(t *testing.T) {
			testenv.NetNS(t)
			before := testTable(t, options...)
			set1(t, before, services(400))
			if err := before.Close(); err != nil {
				t.Fatal(err)
			}
			later := services(500) // a hundred are new
			for f, b := range later.Frontends {
				switch n := f.Addr.As4()[3]; {
				case f.Addr.As4()[2] == 0 && n < 50: // deleted
					delete(later.Frontends, f)
					delete(later.Addresses, f.Addr)
				case n < 100: // other endpoints
					b.Outside = slices.Concat(b.Outside[1:], endpoints("10.245.0.1", 2))
					b.Inside = b.Outside
					later.Frontends[f] = b
				case n < 120:
					b.Outside = nil
					b.Inside = nil
					later.Frontends[f] = b
				}
			}
			was := contents(t)
			after := testTable(t, options...)
			set1(t, after, later)
			is, differ := contents(t), 0
			for e, v := range is {
				if old, there := was[e]; !there || old != v {
					differ++
				}
			}
			for e := range was {
				if _, stays := is[e]; !stays {
					differ++
				}
			}
			if got := value(after.metrics.changes); int(got) != differ || value(after.metrics.rebuilds) != 0 {
				t.Errorf("%v elements were written, %d were wrong", got, differ)
			}
			check(t, later)
			sent := value(after.metrics.changes)
			set1(t, after, later)
			if got := value(after.metrics.changes); got != sent {
				t.Errorf("a second time %v elements are written", got-sent)
			}
		})
	}
}

// contents are the elements in the kernel.
func contents(t *testing.T) nfnetlink.Contents {
	t.Helper()
	c, err := nfnetlink.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := read(c)
	if err != nil || !f.whole {
		t.Fatalf("read the table: %+v, %v", f, err)
	}
	return f.contents
}
