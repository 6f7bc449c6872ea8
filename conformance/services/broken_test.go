package services

import (
	"os/exec"
	"strings"
	"testing"
)

// TestBroken sees the suite fail where the datapath is wrong in one thing: a suite that passes then would be worth nothing.
func TestBroken(t *testing.T) {
	var files []File
	for _, f := range cases(t) {
		if f.Name == "internal/4" || f.Name == "affinity/4" {
			f.Steps = f.Steps[:1]
			files = append(files, f)
		}
	}
	l := newLab(t)
	a := l.startAgents(true)
	l.overlayWorks()
	if met := judge(t, Hythe, l.runAll(Hythe, a, files)); met == 0 {
		t.Fatal("nothing is right before anything is broken")
	}
	node := l.hosts["node1"]
	nft := func(text string) {
		l.in(node, func() {
			command := exec.Command("nft", "-f", "-")
			command.Stdin = strings.NewReader(text)
			if out, err := command.CombinedOutput(); err != nil {
				t.Fatalf("nft: %v: %s", err, out)
			}
		})
	}
	for _, broken := range []struct {
		name, rule string
		line       string // of the table of asks
	}{
		{"the source is lost", "chain c { type nat hook postrouting priority 90; ip daddr 10.244.1.2 masquerade; }", "c tcp 10.96.4.1:80 a=c"},
		{"an endpoint is left out", "chain c { type nat hook prerouting priority -110; ip daddr 10.96.10.3 tcp dport 80 dnat to 10.244.1.2:8080; }",
			"c tcp 10.96.10.3:80 a=c b=c asks=1 pause=1100ms"},
		{"a client does not stay", "chain c { type nat hook prerouting priority -110; ip daddr 10.96.10.4 tcp dport 80 dnat ip addr . port to numgen inc mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.1.3 . 8080 }; }",
			"c tcp 10.96.10.4:80 one a=c b=c d=c"},
		{"another endpoint answers too", "chain c { type nat hook prerouting priority -110; ip daddr 10.96.4.1 tcp dport 80 dnat ip addr . port to numgen inc mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.1.3 . 8080 }; }",
			"c tcp 10.96.4.1:80 a=c"},
		{"what should be refused is dropped", "chain c { type filter hook prerouting priority -400; ip daddr 10.96.4.3 drop; }", "c tcp 10.96.4.3:80 refused"},
		{"what should be dropped is refused", "chain c { type filter hook prerouting priority -150; ip daddr 10.96.4.2 reject with icmp port-unreachable; }",
			"c tcp 10.96.4.2:80 dropped"},
	} {
		ask, _, err := readAsk(strings.Fields(broken.line))
		if err != nil {
			t.Fatal(err)
		}
		if seen := l.sample(ask, ask.Want); !ask.Want.Met(seen) && ask.Pause == 0 {
			t.Errorf("%s: before that, %s sees %v, want %s", broken.name, ask, seen, ask.Want)
		}
		nft("table ip broken {\n" + broken.rule + "\n}")
		if ask.Pause > 0 {
			ask.Pause, ask.Count = 0, 0
		}
		if seen := l.sample(ask, ask.Want); ask.Want.Met(seen) {
			t.Errorf("%s: %s sees %v, which is found right", broken.name, ask, seen)
		}
		nft("delete table ip broken")
	}
}
