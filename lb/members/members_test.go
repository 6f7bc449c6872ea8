package members

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var testKeys = Keys{[]byte("0123456789abcdef")}

func testHeartbeat() Heartbeat {
	return Heartbeat{
		Node: "n1", Boot: 7, Sequence: 9, Heard: [2]uint64{1, 2}, Hold: 1500 * time.Millisecond, Leaving: true,
		MACs: []net.HardwareAddr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}},
		VIPs: []VIP{
			{Addr: netip.MustParseAddr("203.0.113.1"), Generation: 1 << 40, Owned: true, Healthy: true},
			{Addr: netip.MustParseAddr("203.0.113.2"), Draining: true, Blocked: true},
			{Addr: netip.MustParseAddr("2001:db8::1"), Generation: 3},
		},
	}
}

func TestCodec(t *testing.T) {
	want := testHeartbeat()
	data, err := testKeys.Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := testKeys.Decode(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	newKey := []byte("fedcba9876543210")
	if _, err := (Keys{newKey, testKeys[0]}).Decode(data); err != nil {
		t.Errorf("a second key is not accepted: %v", err)
	}
	if _, err := (Keys{newKey}).Decode(data); !errors.Is(err, errAuth) {
		t.Errorf("a foreign key: %v", err)
	}
	for i := range data {
		data[i] ^= 1
		if _, err := testKeys.Decode(data); err == nil {
			t.Fatalf("byte %d changed and nobody noticed", i)
		}
		data[i] ^= 1
	}
	for n := range len(data) - sha256.Size {
		body := data[:n]
		if _, err := testKeys.Decode(append(append([]byte{}, body...), sign(testKeys[0], body)...)); err == nil {
			t.Fatalf("cut after %d bytes and accepted", n)
		}
	}
	for range MaxVIPs {
		want.VIPs = append(want.VIPs, VIP{})
	}
	if _, err := testKeys.Encode(want); err == nil {
		t.Error("too many VIPs were encoded")
	}
	full := Heartbeat{Node: "n", VIPs: make([]VIP, MaxVIPs)}
	for i := range full.VIPs {
		full.VIPs[i].Addr = netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), 15: byte(i)})
	}
	if data, err := testKeys.Encode(full); err != nil || len(data) > 65507 {
		t.Errorf("the largest heartbeat has %d bytes, %v", len(data), err)
	}
}

func FuzzDecode(f *testing.F) {
	data, _ := testKeys.Encode(testHeartbeat())
	f.Add(data[:len(data)-sha256.Size])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, body []byte) {
		h, err := testKeys.Decode(append(append([]byte{}, body...), sign(testKeys[0], body)...))
		if err != nil {
			return
		}
		again, err := testKeys.Encode(h)
		if err != nil {
			t.Fatalf("decoded %+v but cannot encode it: %v", h, err)
		}
		if h2, err := testKeys.Decode(again); err != nil || !reflect.DeepEqual(h, h2) {
			t.Fatalf("%+v became %+v, %v", h, h2, err)
		}
	})
}

// FuzzReceive hands a node what anybody may send: nothing that is not signed is read, signed messages of any content
// break nothing, and all of them once more change nothing.
func FuzzReceive(f *testing.F) {
	for _, h := range []Heartbeat{
		testHeartbeat(),
		{Node: "a", Boot: 5, Sequence: 1, Heard: [2]uint64{77}, VIPs: []VIP{{Addr: netip.MustParseAddr("203.0.113.1"), Owned: true}}},
		{Node: "a", Boot: 5, Sequence: 1 << 63, Heard: [2]uint64{0, 77}, Hold: time.Hour},
		{Node: "b", Boot: 77, Sequence: 1, Heard: [2]uint64{77, 77}, Leaving: true},
	} {
		data, _ := testKeys.Encode(h)
		f.Add(data[:len(data)-sha256.Size], data[:len(data)-sha256.Size], uint16(100))
		f.Add(data[:len(data)-sha256.Size], data, uint16(900))
	}
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, first, second []byte, gap uint16) {
		if _, err := (Keys{[]byte("another key, which nobody has")}).Decode(first); err == nil {
			t.Fatal("an unsigned message was read")
		}
		table := NewTable("b", 77, Config{})
		table.SetPeers([]string{"a", "b", "n1"})
		var heard []Heartbeat
		for _, body := range [][]byte{first, second} {
			h, err := testKeys.Decode(append(append([]byte{}, body...), sign(testKeys[0], body)...))
			if err != nil {
				continue
			}
			heard = append(heard, h)
			_, _, _ = table.Receive(now, h)
		}
		before := table.Alive(now)
		for _, h := range heard {
			_, _, _ = table.Receive(now, h)
		}
		if after := table.Alive(now); !reflect.DeepEqual(before, after) {
			t.Fatalf("%v, and once more: %v", before, after)
		}
		for _, m := range before {
			if m.Name == "b" {
				t.Fatal("it hears itself")
			}
		}
		table.Tick(now.Add(time.Duration(gap) * time.Millisecond))
		table.EndHold("a")
		table.Tick(now.Add(2 * time.Hour))
		table.Tick(now.Add(4 * time.Hour))
	})
}

func TestReadKeys(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		keys int
	}{
		"one": {"0123456789abcdef\n", 1}, "two": {"0123456789abcdef\n\nfedcba9876543210", 2}, "short": {"0123", 0}, "empty": {"\n", 0},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := ReadKeys(path)
		if len(keys) != c.keys || (err == nil) != (c.keys > 0) {
			t.Errorf("%s: %d keys, %v", name, len(keys), err)
		}
		if err != nil && strings.Contains(err.Error(), "0123") {
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
	}
	if _, err := ReadKeys("/does/not/exist"); err == nil {
		t.Error("a missing file is no error")
	}
}

// A lan is some tables whose messages are delivered at once, unless cut.
type lan struct {
	tables map[string]*Table
	boots  uint64
	cut    map[[2]string]bool
	say    map[string]Heartbeat
	log    [][2]any // all messages ever sent: receiver and heartbeat
}

func newLAN(names ...string) *lan {
	l := &lan{tables: map[string]*Table{}, cut: map[[2]string]bool{}, say: map[string]Heartbeat{}}
	for _, name := range names {
		l.boot(name)
	}
	return l
}

func (l *lan) boot(name string) {
	l.boots++
	l.tables[name] = NewTable(name, l.boots*1000, Config{})
	names := []string{"a", "b", "c"}
	l.tables[name].SetPeers(names)
}

func (l *lan) send(from, to string) {
	h := l.tables[from].To(to, l.say[from])
	l.log = append(l.log, [2]any{to, h})
	l.deliver(from, to, h)
}

func (l *lan) deliver(from, to string, h Heartbeat) {
	if t := l.tables[to]; t != nil && !l.cut[[2]string{from, to}] {
		if reply, _, _ := t.Receive(time.Now(), h); reply && l.tables[from] != nil {
			l.send(to, from)
		}
	}
}

// round is one interval of all tables.
func (l *lan) round() {
	time.Sleep(DefaultInterval)
	for _, from := range []string{"a", "b", "c"} {
		if t := l.tables[from]; t != nil {
			t.Tick(time.Now())
			for _, to := range t.Peers() {
				l.send(from, to)
			}
		}
	}
}

func (l *lan) alive(name string) string {
	var names []string
	for _, m := range l.tables[name].Alive(time.Now()) {
		names = append(names, m.Name)
	}
	return strings.Join(names, " ")
}

func (l *lan) want(t *testing.T, name, want string) {
	t.Helper()
	if got := l.alive(name); got != want {
		t.Errorf("%s sees %q alive, want %q", name, got, want)
	}
}

func TestPartitionAndHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN("a", "b", "c")
		l.round()
		l.want(t, "a", "b c")
		for _, other := range []string{"b", "c"} {
			l.cut[[2]string{"a", other}], l.cut[[2]string{other, "a"}] = true, true
		}
		for range 4 {
			l.round()
		}
		l.want(t, "a", "b c") // 600 ms of silence are no death
		l.round()
		l.round()
		l.want(t, "a", "")
		l.want(t, "b", "c")
		clear(l.cut)
		l.round()
		l.want(t, "a", "b c")
		l.want(t, "b", "a c")
	})
}

func TestRestartHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN("a", "b", "c")
		l.round()
		l.say["a"] = Heartbeat{Hold: 5 * time.Second}
		l.send("a", "b")
		delete(l.tables, "a")
		for range 30 { // 4.5 s
			l.round()
		}
		l.want(t, "b", "a c")
		if m := l.tables["b"].Alive(time.Now()); !m[0].Held {
			t.Error("a is not shown as held")
		}
		l.want(t, "c", "b") // it was not told
		l.boot("a")
		l.say["a"] = Heartbeat{}
		l.round()
		l.want(t, "b", "a c")
		l.want(t, "a", "b c")
		if m := l.tables["b"].Alive(time.Now()); m[0].Held {
			t.Error("a is held after it came back")
		}

		// This time it does not come back.
		l.say["a"] = Heartbeat{Hold: 5 * time.Second}
		l.send("a", "b")
		delete(l.tables, "a")
		for range 36 { // 5.4 s
			l.round()
		}
		l.want(t, "b", "c")
	})
}

func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN("a", "b", "c")
		l.round()
		l.say["a"] = Heartbeat{Leaving: true}
		l.send("a", "b")
		l.want(t, "b", "c")
	})
}

// TestLateTimer starves b: the silence was its own, so nobody is dead until a whole window has passed.
func TestLateTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN("a", "b", "c")
		l.round()
		b := l.tables["b"]
		time.Sleep(3 * time.Second)
		if died := b.Tick(time.Now()); died != nil {
			t.Errorf("%v died while b slept", died)
		}
		if !b.Late(time.Now()) {
			t.Error("b did not notice that it was late")
		}
		for range 4 {
			time.Sleep(DefaultInterval)
			if died := b.Tick(time.Now()); died != nil {
				t.Errorf("%v died in the window", died)
			}
		}
		time.Sleep(DefaultInterval)
		if died := b.Tick(time.Now()); len(died) != 2 {
			t.Errorf("died: %v", died)
		}
	})
}

// TestReplay sends every message of the past again: none is believed, whoever restarted meanwhile.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN("a", "b", "c")
		for _, restart := range []string{"", "a", "b", "c", "a"} {
			if restart != "" {
				l.boot(restart)
			}
			for range 3 {
				l.round()
			}
		}
		l.want(t, "a", "b c")
		vips := []VIP{{Addr: netip.MustParseAddr("203.0.113.1"), Owned: true}}
		past := l.log
		for _, entry := range past {
			to, h := entry[0].(string), entry[1].(Heartbeat)
			before := l.tables[to].Alive(time.Now())
			h.VIPs = vips // to see it, if it is believed
			_, _, _ = l.tables[to].Receive(time.Now(), h)
			if after := l.tables[to].Alive(time.Now()); !reflect.DeepEqual(before, after) {
				t.Fatalf("%s believed an old message of %s", to, h.Node)
			}
		}
		l.round()
		l.want(t, "a", "b c") // and the replays did no harm
		if _, _, err := l.tables["a"].Receive(time.Now(), Heartbeat{Node: "x", Boot: 1}); !errors.Is(err, ErrUnknownNode) {
			t.Errorf("an unknown node: %v", err)
		}
	})
}

// TestServer sends all kinds of messages to a server over real UDP. Two servers that talk to each other need two hosts: see
// the rig of package speaker.
func TestServer(t *testing.T) {
	s := NewServer(Options{Node: "b", Port: 17472, Keys: func() Keys { return testKeys }, Log: slog.New(slog.DiscardHandler)})
	s.SetPeers(map[string]netip.Addr{"a": netip.MustParseAddr("127.0.0.1")})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	conn, err := net.Dial("udp", "127.0.0.1:17472")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	good, _ := testKeys.Encode(Heartbeat{Node: "a", Boot: 1, Sequence: 1})
	forged, _ := Keys{[]byte("another key, long enough")}.Encode(Heartbeat{Node: "a", Boot: 1, Sequence: 1})
	stranger, _ := testKeys.Encode(Heartbeat{Node: "z", Boot: 1, Sequence: 1})
	deadline := time.Now().Add(5 * time.Second)
	for {
		for _, data := range [][]byte{good, forged, stranger, []byte("x"), {}} {
			_, _ = conn.Write(data) // before the server listens this fails
		}
		got := s.Received()
		if got["auth"] > 0 && got["unknown"] > 0 && got["malformed"] > 0 && got["ok"] > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Sprint("received ", got))
		}
		time.Sleep(10 * time.Millisecond)
	}
	if alive := s.Alive(); len(alive) != 0 {
		t.Errorf("%v is alive though it never heard b", alive)
	}
}
