package demo

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/lab/load"
)

// packetOf is a TCP segment in an Ethernet frame.
func packetOf(id uint16, ttl byte, sequence uint32) []byte {
	f := make([]byte, 14+20+20)
	f[12], f[13] = 0x08, 0x00
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, ttl, 6
	binary.BigEndian.PutUint16(ip[4:], id)
	copy(ip[12:], []byte{198, 51, 100, 10})
	copy(ip[16:], []byte{203, 0, 113, 10})
	binary.BigEndian.PutUint32(ip[24:], sequence)
	binary.BigEndian.PutUint16(ip[36:], uint16(ttl)) // a checksum that changes with the hop
	return f
}

func resetOf(ttl byte, mac byte) []byte {
	f := packetOf(0, ttl, 1)
	f[11], f[14+33] = mac, 0x04
	return f
}

func TestCaptureSeesTwice(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		name   string
		second []byte
		after  time.Duration
		twice  int
	}{
		{"the same packet, a hop later", packetOf(7, 63, 1), time.Millisecond, 1},
		{"the same packet again on the wire", packetOf(7, 64, 1), 100 * time.Microsecond, 1},
		{"another packet", packetOf(8, 64, 1), time.Millisecond, 0},
		{"other data", packetOf(7, 64, 2), time.Millisecond, 0},
		{"a retransmission without an id of its own", packetOf(7, 64, 1), 200 * time.Millisecond, 0},
		{"resets for two segments", resetOf(64, 1), time.Microsecond, 0},
		{"resets of two hosts", resetOf(64, 2), time.Microsecond, 1},
		{"a reset, a hop later", resetOf(63, 1), time.Microsecond, 1},
	} {
		first := packetOf(7, 64, 1)
		if isReset(c.second[14:]) {
			first = resetOf(64, 1)
		}
		capture := &capture{vip: netip.MustParseAddr("203.0.113.10"), seed: maphash.MakeSeed()}
		capture.recent, capture.older = map[uint64]sight{}, map[uint64]sight{}
		capture.see(first, start)
		capture.see(c.second, start.Add(c.after))
		if packets, twice := capture.result(); packets != 2 || len(twice) != c.twice {
			t.Errorf("%s: %d packets, %d twice, want 2 and %d", c.name, packets, len(twice), c.twice)
		}
	}
}

func TestSilenceAndBoth(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int, mac string) voice { return voice{start.Add(time.Duration(ms) * time.Millisecond), mac} }
	voices := []voice{at(-20, "old"), at(10, "old"), at(310, "new"), at(320, "old"), at(330, "new")}
	if got := silence(voices, start.Add(350*time.Millisecond)); got != 300*time.Millisecond {
		t.Errorf("silence of %s, want 300ms", got)
	}
	if got := both(voices, "old", start); got != 10*time.Millisecond {
		t.Errorf("both answered for %s, want 10ms", got)
	}
	if got := both(voices[:3], "old", start); got != 0 {
		t.Errorf("both answered for %s, want 0", got)
	}
}

func TestGap(t *testing.T) {
	start := time.Unix(1000, 0)
	c := &steadyClient{}
	for _, ms := range []int{15, 900, 30, 915} { // answers come in any order
		c.answered = append(c.answered, start.Add(time.Duration(ms)*time.Millisecond))
	}
	if got := c.gap(start, start.Add(930*time.Millisecond)); got != 870*time.Millisecond {
		t.Errorf("gap of %s, want 870ms", got)
	}
	if got := c.gap(start, start.Add(3*time.Second)); got != 2085*time.Millisecond {
		t.Errorf("a gap that has not ended: %s, want 2.085s", got)
	}
}

func TestPathFor(t *testing.T) {
	h := gateway.Host{Routes: []gateway.Route{
		{Match: gateway.Exact, Path: "/foo"},
		{Match: gateway.Prefix, Path: "/foo"},
		{Match: gateway.Prefix, Path: "/"},
		{Match: gateway.Prefix, Path: "/never"},
	}}
	for i, want := range []string{"/foo", "/foo/hythe-demo", "/", ""} {
		if got, ok := pathFor(h, i); got != want && ok {
			t.Errorf("route %d is asked at %q, want %q", i, got, want)
		}
	}
	if serves(h.Routes[1], "/foobar") {
		t.Error("/foo serves /foobar")
	}
}

func TestJudge(t *testing.T) {
	good := load.Tally{ByVersion: map[string]int{"v1": 1, "v2": 1}, Took: make([]time.Duration, minRequests)}
	if _, err := judge(good, 20*time.Second); err != nil {
		t.Errorf("enough requests, none lost: %v", err)
	}
	lost := good
	lost.Lost = []string{"one"}
	slow := good
	few := good
	few.Took = few.Took[1:]
	for name, c := range map[string]struct {
		t    load.Tally
		took time.Duration
	}{"one lost": {lost, 20 * time.Second}, "too slow": {slow, time.Minute}, "too few": {few, 20 * time.Second}} {
		if _, err := judge(c.t, c.took); err == nil {
			t.Errorf("%s is no failure", name)
		}
	}
}
