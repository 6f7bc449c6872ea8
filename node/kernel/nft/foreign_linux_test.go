package nft

import (
	"fmt"
	"testing"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// TestDroppers reads back what somebody else's rules drop, by rules of the nft command line.
func TestDroppers(t *testing.T) {
	testenv.Root(t)
	needNft(t)
	for _, c := range []struct{ name, rules, want string }{
		{"nothing", "", "[]"},
		{"accepts", "add table inet a; add chain inet a c { type filter hook forward priority 0; }; add rule inet a c tcp dport 8443 counter accept", "[]"},
		{"rule", "add table inet a; add chain inet a c { type filter hook forward priority 0; }; add rule inet a c tcp dport 8443 drop",
			"[{inet a c [forward]}]"},
		{"raw", "add table ip a; add chain ip a c { type filter hook prerouting priority -300; }; add rule ip a c ip daddr 203.0.113.10 counter drop",
			"[{ip a c [prerouting]}]"},
		{"reject", "add table inet a; add chain inet a c { type filter hook input priority 0; }; add rule inet a c udp dport 4789 reject",
			"[{inet a c [input]}]"},
		{"policy", "add table ip6 a; add chain ip6 a c { type filter hook forward priority 0; policy drop; }", "[{ip6 a c [forward]}]"},
		{"jump", "add table inet a; add chain inet a d; add rule inet a d drop; " +
			"add chain inet a c { type filter hook forward priority 0; }; add rule inet a c tcp dport 80 jump d; " +
			"add chain inet a o { type filter hook output priority 0; }", "[{inet a d [forward output]}]"},
		{"our own", "add table inet hythe; add chain inet hythe c { type filter hook forward priority 0; }; add rule inet hythe c drop", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, "node")
			h.do(func() {
				if c.rules != "" {
					h.must(nftTool(t, c.rules))
				}
				got, err := readback.Droppers()
				h.must(err)
				if fmt.Sprint(got) != c.want {
					t.Errorf("got %v, want %s", got, c.want)
				}
			})
		})
	}
}
