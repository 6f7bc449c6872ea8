package arp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/arp"
	"golang.org/x/net/bpf"
)

var (
	self    = mac{2, 0, 0, 0, 0, 1}
	member  = mac{2, 0, 0, 0, 0, 2}
	foreign = mac{2, 0, 0, 0, 0, 9}
	vip     = netip.MustParseAddr("203.0.113.1")
	other   = netip.MustParseAddr("203.0.113.2")
	host    = netip.MustParseAddr("203.0.113.99")
	start   = time.Unix(1e9, 0)
)

func testTable() *table {
	t := newTable()
	t.self = self
	t.members[member] = "n2"
	t.set(start, []netip.Addr{vip})
	t.due(start)
	return t
}

func request(from mac, ip, target netip.Addr) message {
	return message{dst: broadcast, src: from, op: arp.OperationRequest, senderMAC: from, senderIP: ip, targetIP: target}
}

func TestAnswers(t *testing.T) {
	unicast := request(foreign, host, vip)
	unicast.dst = self
	elsewhere := unicast
	elsewhere.dst = member
	reply := request(foreign, host, vip)
	reply.op = arp.OperationReply
	for name, c := range map[string]struct {
		m    message
		want bool
	}{
		"request":                     {request(foreign, host, vip), true},
		"unicast request":             {unicast, true},
		"request of a prober":         {request(foreign, netip.IPv4Unspecified(), vip), true},
		"request for another address": {request(foreign, host, other), false},
		"request to another MAC":      {elsewhere, false},
		"reply":                       {reply, false},
		"own request":                 {request(self, host, vip), false},
	} {
		send, events := testTable().handle(start, c.m)
		if len(events) != 0 || (len(send) == 1) != c.want {
			t.Errorf("%s: sent %v, learned %v", name, send, events)
			continue
		}
		if c.want && (send[0] != message{dst: foreign, src: self, op: arp.OperationReply, senderMAC: self, senderIP: vip, targetMAC: foreign, targetIP: c.m.senderIP}) {
			t.Errorf("%s: sent %+v", name, send[0])
		}
	}
}

// TestSchedule sees both gratuitous forms at each of the times.
func TestSchedule(t *testing.T) {
	tab := newTable()
	tab.self = self
	tab.set(start, []netip.Addr{vip})
	var at []time.Duration
	for now := start; now.Before(start.Add(70 * time.Second)); {
		send, _, next := tab.due(now)
		if len(send) == 2 && send[0].op == arp.OperationRequest && send[1].op == arp.OperationReply && send[1].senderIP == vip && send[1].targetIP == vip {
			at = append(at, now.Sub(start))
		} else if len(send) != 0 {
			t.Fatalf("sent %+v", send)
		}
		if !next.After(now) {
			t.Fatalf("next is %v at %v", next, now)
		}
		now = next
	}
	want := append(announceAfter[:], 35*time.Second, 65*time.Second)
	if len(at) != len(want) {
		t.Fatalf("announced at %v, want %v", at, want)
	}
	for i := range want {
		if at[i] != want[i] {
			t.Errorf("announced at %v, want %v", at, want)
		}
	}
	tab.set(start.Add(70*time.Second), nil)
	if send, _, _ := tab.due(start.Add(200 * time.Second)); len(send) != 0 {
		t.Errorf("a released address is announced: %v", send)
	}
}

func TestConflict(t *testing.T) {
	for name, c := range map[string]struct {
		from   mac
		member string
		gap    time.Duration
	}{
		"foreign host": {foreign, "", defendEvery},
		"member":       {member, "n2", outshoutEvery},
	} {
		tab := testTable()
		claim := request(c.from, vip, vip)
		defended := 0
		for now := start; now.Before(start.Add(3 * c.gap)); now = now.Add(c.gap / 10) {
			send, events := tab.handle(now, claim)
			if len(events) != 1 || events[0].Kind != Conflict || events[0].Addr != vip || events[0].Member != c.member || events[0].MAC != c.from.String() {
				t.Fatalf("%s: learned %v", name, events)
			}
			if len(send) == 2 {
				defended++
			}
		}
		if defended != 3 {
			t.Errorf("%s: defended %d times in three intervals", name, defended)
		}
	}
}

func TestQuestions(t *testing.T) {
	for name, c := range map[string]struct {
		heard  *message
		want   EventKind
		member string
	}{
		"silence":                   {nil, Free, ""},
		"a host answers":            {&message{dst: self, src: foreign, op: arp.OperationReply, senderMAC: foreign, senderIP: other, targetMAC: self, targetIP: netip.IPv4Unspecified()}, Answered, ""},
		"a member answers":          {&message{dst: self, src: member, op: arp.OperationReply, senderMAC: member, senderIP: other, targetMAC: self, targetIP: netip.IPv4Unspecified()}, Answered, "n2"},
		"a host talks":              {ptr(request(foreign, other, host)), Answered, ""},
		"a host probes for it too":  {ptr(request(foreign, netip.IPv4Unspecified(), other)), Answered, ""},
		"a member probes for it":    {ptr(request(member, netip.IPv4Unspecified(), other)), Free, ""},
		"own probe comes back":      {ptr(probe(self, other)), Free, ""},
		"a host asks for somewhere": {ptr(request(foreign, host, other)), Free, ""},
	} {
		tab := testTable()
		tab.ask(start, other, Question{Count: 3, MinGap: time.Second, MaxGap: 2 * time.Second, Wait: 2 * time.Second})
		probes, events := 0, []Event(nil)
		for now := start; now.Before(start.Add(10*time.Second)) && len(events) == 0; now = now.Add(50 * time.Millisecond) {
			send, learned, _ := tab.due(now)
			for _, m := range send {
				if m == probe(self, other) {
					probes++
				}
			}
			events = append(events, learned...)
			if probes == 2 && c.heard != nil {
				_, learned := tab.handle(now, *c.heard)
				events = append(events, learned...)
			}
		}
		if len(events) != 1 || events[0].Kind != c.want || events[0].Addr != other || events[0].Member != c.member {
			t.Errorf("%s: learned %v", name, events)
		}
		if c.want == Free && probes != 3 {
			t.Errorf("%s: %d probes", name, probes)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestNeighbours(t *testing.T) {
	tab := testTable()
	tab.neighbours[host] = time.Time{}
	tab.handle(start, request(foreign, other, other))
	if !tab.alive.IsZero() {
		t.Error("a stranger counts as a neighbour")
	}
	tab.handle(start, message{dst: self, src: foreign, op: arp.OperationReply, senderMAC: foreign, senderIP: host, targetMAC: self, targetIP: netip.IPv4Unspecified()})
	if tab.alive != start || tab.neighbours[host] != start {
		t.Error("the answer of a neighbour was not noticed")
	}
}

// TestFilter runs the kernel's program, apart from what only a kernel knows, on frames.
func TestFilter(t *testing.T) {
	many := make([]netip.Addr, maxFiltered+1)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
	}
	frame := func(m message) []byte {
		b, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ip := frame(request(foreign, host, vip))
	binary.BigEndian.PutUint16(ip[12:], 0x0800)
	for name, c := range map[string]struct {
		addrs []netip.Addr
		frame []byte
		want  bool
	}{
		"target":        {[]netip.Addr{other, vip}, frame(request(foreign, host, vip)), true},
		"sender":        {[]netip.Addr{other, vip}, frame(request(foreign, vip, host)), true},
		"neither":       {[]netip.Addr{vip}, frame(request(foreign, host, other)), false},
		"no addresses":  {nil, frame(request(foreign, host, vip)), false},
		"no ARP":        {[]netip.Addr{vip}, ip, false},
		"too many":      {many, frame(request(foreign, host, vip)), true},
		"the most":      {append(many[:maxFiltered-1:maxFiltered-1], vip), frame(request(foreign, host, vip)), true},
		"too short":     {[]netip.Addr{vip}, ip[:30], false},
		"the most, not": {many[:maxFiltered], frame(request(foreign, host, vip)), false},
	} {
		vm, err := bpf.NewVM(filter(c.addrs, false))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n, err := vm.Run(c.frame)
		if err != nil || (n > 0) != c.want {
			t.Errorf("%s: passed %d bytes, %v", name, n, err)
		}
		if prog, err := bpf.Assemble(filter(c.addrs, true)); err != nil || len(prog) > 4096 {
			t.Errorf("%s: the kernel's program has %d instructions, %v", name, len(prog), err)
		}
	}
}

// raw is a frame by hand: what is wrong with it no codec would write.
func raw(edit func(b []byte) []byte) []byte {
	b, err := request(foreign, host, vip).encode()
	if err != nil {
		panic(err)
	}
	return edit(b)
}

func set(at int, values ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[at:], values); return b }
}

// TestMalformed hears frames that are none: they change nothing, and nobody is answered.
func TestMalformed(t *testing.T) {
	if _, err := parse(raw(func(b []byte) []byte { return append(b, make([]byte, 18)...) })); err != nil {
		t.Fatalf("a good frame with padding: %v", err)
	}
	for name, frame := range map[string][]byte{
		"nothing":               nil,
		"an Ethernet header":    raw(func(b []byte) []byte { return b[:headerLen] }),
		"one byte short":        raw(func(b []byte) []byte { return b[:headerLen+packetLen-1] }),
		"another EtherType":     raw(set(12, 0x08, 0x00)),
		"hardware of a token":   raw(set(headerLen, 0, 6)),
		"protocol IPv6":         raw(set(headerLen+2, 0x86, 0xdd)),
		"no hardware length":    raw(set(headerLen+4, 0)),
		"long hardware address": raw(set(headerLen+4, 255)),
		"no protocol length":    raw(set(headerLen+5, 0)),
		"protocol length of v6": raw(set(headerLen+5, 16)),
		"operation 0":           raw(set(headerLen+6, 0, 0)),
		"reverse ARP":           raw(set(headerLen+6, 0, 3)),
		"operation 65535":       raw(set(headerLen+6, 255, 255)),
		"sender nobody":         raw(set(headerLen+8, 0, 0, 0, 0, 0, 0)),
		"sender broadcast":      raw(set(headerLen+8, 255, 255, 255, 255, 255, 255)),
		"sender a group":        raw(set(headerLen+8, 1, 0, 0x5e, 0, 0, 1)),
	} {
		if m, err := parse(frame); err == nil {
			t.Errorf("%s: read as %+v", name, m)
		}
	}
}

// TestForged hears gratuitous frames for an owned VIP and for one that is asked about, from everywhere: what is owned
// stays so, and the answers are bounded.
func TestForged(t *testing.T) {
	tab := testTable()
	sent := 0
	for i := range 10_000 {
		from := mac{2, 9, 0, 0, byte(i >> 8), byte(i)}
		for _, m := range announcements(from, vip) {
			send, _ := tab.handle(start.Add(time.Duration(i)*time.Millisecond), m)
			sent += len(send)
		}
	}
	if tab.owned[vip] == nil {
		t.Error("the VIP was given up")
	}
	if sent != 2 { // 10 s: one defence of two frames
		t.Errorf("20000 forged frames in 10 s were answered with %d", sent)
	}
}

// FuzzFrame feeds frames to the whole responder, as they come from the wire: nothing panics, what is sent says only
// that an owned address is here, to the one who asked or to all, and a frame about other addresses does nothing at all.
func FuzzFrame(f *testing.F) {
	for _, m := range []message{
		request(foreign, host, vip), request(foreign, vip, vip), request(foreign, vip, host), request(member, netip.IPv4Unspecified(), other),
		request(foreign, netip.IPv4Unspecified(), other), request(foreign, other, other), request(foreign, host, host),
		answer(foreign, request(self, host, vip)), announcements(member, vip)[1],
	} {
		frame, err := m.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
		f.Add(frame[:30])
		f.Add(append(frame, make([]byte, 18)...))
	}
	vm, err := bpf.NewVM(filter([]netip.Addr{vip, other}, false))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		passed, err := vm.Run(frame)
		if err != nil {
			t.Fatal(err)
		}
		m, err := parse(frame)
		if err != nil {
			return
		}
		tab := testTable()
		tab.ask(start, other, Full())
		send, events := tab.handle(start, m)
		if len(send)+len(events) > 0 && passed == 0 {
			t.Fatalf("the kernel drops %+v, which means something: %v %v", m, send, events)
		}
		mine := m.targetIP == vip || m.senderIP == vip
		if len(send) > 2 || len(send) > 0 && !mine || tab.owned[vip] == nil || len(tab.owned) != 1 {
			t.Fatalf("%+v: sent %+v, owned %v", m, send, tab.owned)
		}
		for _, e := range events {
			if e.Addr != vip && e.Addr != other || e.Addr != m.senderIP && e.Addr != m.targetIP || e.Kind == Free {
				t.Fatalf("%+v: learned %s", m, e)
			}
		}
		for _, s := range send {
			if s.senderMAC != self || s.src != self || s.senderIP != vip || s.dst != broadcast && s.dst != m.senderMAC {
				t.Fatalf("sent %+v", s)
			}
			b, err := s.encode()
			if err != nil {
				t.Fatalf("cannot encode %+v: %v", s, err)
			}
			if again, err := parse(b); err != nil || again != s {
				t.Fatalf("sent %+v, which reads as %+v, %v", s, again, err)
			}
		}
	})
}
