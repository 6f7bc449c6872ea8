package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

const second = Uptime(time.Second)

func ranges(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func request(i int) Request { return Request{fmt.Sprintf("c%d", i), "eth0"} }

func TestAllocateInOrder(t *testing.T) {
	l := &Leases{BootID: "b"}
	var got []string
	for i := range 6 {
		lease, err := l.Allocate(request(i), ranges("10.1.2.0/29", "fd00::/64"), 0)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(lease.Addresses))
	}
	want := "[[10.1.2.1 fd00::1] [10.1.2.2 fd00::2] [10.1.2.3 fd00::3] [10.1.2.4 fd00::4] [10.1.2.5 fd00::5] [10.1.2.6 fd00::6]]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	// Neither .0 nor .7 may be given.
	if _, err := l.Allocate(request(6), ranges("10.1.2.0/29", "fd00::/64"), 0); !errors.Is(err, ErrNoAddress) {
		t.Errorf("seventh: %v, want ErrNoAddress", err)
	}
	if len(l.Leases) != 6 {
		t.Errorf("a failed Allocate left %v", l)
	}
}

func TestAllocateRest(t *testing.T) {
	l := &Leases{BootID: "b"}
	p := ranges("10.1.2.0/29")
	give := func(i int, now Uptime, want string) {
		t.Helper()
		got := ""
		if lease, err := l.Allocate(request(i), p, now); err == nil {
			got = lease.Addresses[0].String()
		} else if errors.Is(err, ErrResting) {
			got = "resting"
		} else {
			got = "none"
		}
		if got != want {
			t.Errorf("at %v: got %s, want %s", time.Duration(now), got, want)
		}
	}
	give(1, 0, "10.1.2.1")
	give(2, 0, "10.1.2.2")
	l.Free(request(1), 5*second)
	l.Free(request(2), 4*second)
	// Those that were never in use come first, however long others rested.
	give(3, 100*second, "10.1.2.3")
	give(4, 100*second, "10.1.2.4")
	give(5, 100*second, "10.1.2.5")
	give(6, 100*second, "10.1.2.6")
	l.Free(request(4), 100*second)
	// Then the one that rested longest.
	give(7, 101*second, "10.1.2.2")
	give(8, 101*second, "10.1.2.1")
	give(9, 101*second, "resting")
	give(9, 130*second-1, "resting")
	give(9, 130*second, "10.1.2.4")
	give(10, 1000*second, "none")
}

// TestAllocateAfterBoot boots the machine again: what was in use or at rest comes last, and not within 30 s of the boot.
func TestAllocateAfterBoot(t *testing.T) {
	l := &Leases{BootID: "b"}
	p := ranges("10.1.2.0/29")
	for i := range 4 {
		if _, err := l.Allocate(request(i), p, 1000*second); err != nil {
			t.Fatal(err)
		}
	}
	l.Free(request(0), 1000*second)
	l = l.afterBoot("c")
	if l.BootID != "c" || len(l.Leases) != 0 {
		t.Errorf("after a boot: %v", l)
	}
	for i, want := range []string{"10.1.2.5", "10.1.2.6"} {
		if lease, err := l.Allocate(request(i), p, 5*second); err != nil || lease.Addresses[0].String() != want {
			t.Errorf("got %v, %v, want %s", lease.Addresses, err, want)
		}
	}
	if lease, err := l.Allocate(request(2), p, 5*second); !errors.Is(err, ErrResting) {
		t.Errorf("5 s after the boot: %v, %v, of addresses of before", lease.Addresses, err)
	}
	if lease, err := l.Allocate(request(2), p, 31*second); err != nil || lease.Addresses[0].String() != "10.1.2.1" {
		t.Errorf("31 s after the boot: %v, %v", lease.Addresses, err)
	}
}

func TestAllocateSmall(t *testing.T) {
	for _, test := range []struct {
		prefix string
		want   int
	}{
		{"10.0.0.0/30", 2}, {"10.0.0.0/31", 0}, {"10.0.0.0/32", 0},
		{"fd00::/126", 3}, {"fd00::/127", 1}, {"fd00::/128", 0}, {"255.255.255.252/30", 2},
	} {
		l := &Leases{BootID: "b"}
		got := 0
		for i := range 10 {
			if _, err := l.Allocate(request(i), ranges(test.prefix), 0); err == nil {
				got++
			}
		}
		if got != test.want {
			t.Errorf("%s: %d addresses, want %d", test.prefix, got, test.want)
		}
	}
}

// TestOutside changes the node's range while pods have addresses: they are named, and new ones get other addresses.
func TestOutside(t *testing.T) {
	l := &Leases{BootID: "b"}
	old, changed := ranges("10.1.2.0/24", "fd00:1::/64"), ranges("10.9.9.0/24", "fd00:1::/64")
	for i, p := range [][]netip.Prefix{old, old, changed} {
		if _, err := l.Allocate(request(i), p, 0); err != nil {
			t.Fatal(err)
		}
	}
	if out := l.Outside(old); len(out) != 1 || out[0].Request != request(2) {
		t.Errorf("outside of the old range: %v", out)
	}
	if out := l.Outside(changed); len(out) != 2 || out[0].Request != request(0) || out[1].Request != request(1) {
		t.Errorf("outside of the new range: %v", out)
	}
}

// TestAllocateWalk does random things, and checks after each that no address is in two leases, none is given before
// its rest is over, and that what is saved can be read.
func TestAllocateWalk(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	l := &Leases{BootID: "b"}
	freed := map[netip.Addr]Uptime{}
	now := Uptime(0)
	p := ranges("10.1.2.0/28", "fd00::/64")
	for range 1500 {
		now += Uptime(random.Int64N(int64(10 * second)))
		r := request(random.IntN(20))
		if lease, ok := l.Find(r); ok {
			l.Free(r, now)
			for _, a := range lease.Addresses {
				freed[a] = now
			}
		} else if lease, err := l.Allocate(r, p, now); err == nil {
			for _, a := range lease.Addresses {
				if since, ok := freed[a]; ok && now-since < Uptime(rest) {
					t.Fatalf("%s rested %v only", a, time.Duration(now-since))
				}
			}
		}
		data, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if l, err = parseLeases(data); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzParseLeases(f *testing.F) {
	f.Add([]byte(`{"bootID":"b","leases":[{"containerID":"c","ifName":"eth0","addresses":["10.0.0.1"],"since":5}],"freed":{"10.0.0.2":7},"last":["10.0.0.1"]}`))
	f.Add([]byte(`{"bootID":"b","leases":[{"addresses":["10.0.0.1"]},{"ifName":"x","addresses":["10.0.0.1"]}]}`))
	f.Add([]byte(`{"bootID":"b","last":["fe80::1%x"],"freed":{"fe80::1%x":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseLeases(data)
		if err != nil {
			return
		}
		r := Request{"new", "eth9"}
		l.Free(r, 0)
		lease, err := l.Allocate(r, ranges("10.0.0.0/24", "fd00::/64"), 1<<50)
		if err != nil {
			return
		}
		for _, e := range l.Leases {
			for _, a := range e.Addresses {
				if e.Request != r && (a == lease.Addresses[0] || a == lease.Addresses[1]) {
					t.Fatalf("%s was given twice", a)
				}
			}
		}
	})
}

func BenchmarkAllocate(b *testing.B) {
	l := &Leases{BootID: "b"}
	for i := range 200 {
		if _, err := l.Allocate(request(i), ranges("10.1.2.0/24"), 0); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := l.Allocate(request(999), ranges("10.1.2.0/24"), 1<<50); err != nil {
			b.Fatal(err)
		}
		l.Free(request(999), 0)
	}
}

// TestSweepFindsTheBootIDFile runs as the agent does: without a file of its own.
func TestSweepFindsTheBootIDFile(t *testing.T) {
	if ended, err := Sweep(t.TempDir(), "", Now(), 0); ended != 0 || err != nil {
		t.Errorf("Sweep ended %d, error %v", ended, err)
	}
}
