package services

import (
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	files, err := Read("x", []byte(`About it.
-- objects.yaml --
kind: Service
-- asks --
# a comment
client:4001 udp 10.96.1.1:53   one b=client a=client asks=3 pause=2s
  kube-proxy a=node1 Why
c http 192.0.2.11:30001/healthz 200 2
c tcp 10.96.1.1:80 refused family=6
  hythe dropped Why
-- 2/objects.yaml --
-- 2/asks --
c ping 203.0.113.1 reply
`))
	if err != nil || len(files) != 2 || len(files[0].Steps) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	four, six := files[0].Steps[0].Asks, files[1].Steps[0].Asks
	if len(four) != 2 || len(six) != 3 {
		t.Fatalf("asks: %v and %v", four, six)
	}
	for _, test := range []struct{ got, want string }{
		{four[0].String(), "client:4001 udp 10.96.1.1:53"},
		{four[0].Want.String(), "one a=client b=client"},
		{four[0].For(KubeProxy).String(), "a=node1"},
		{four[0].For(Hythe).String(), "one a=client b=client"},
		{four[0].Pause.String(), "2s"},
		{four[1].String(), "c http 192.0.2.11:30001/healthz"},
		{strings.Join(four[1].Want.Answers, "|"), "200 2"},
		{six[1].String(), "c http [fd00::c000:20b]:31401/healthz"},
		{six[2].For(Hythe).String(), "dropped"},
		{files[1].Steps[1].Asks[0].String(), "c ping fd00::cb00:7101"},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
	for _, bad := range []string{"c tcp 10.96.1.1:80", "c sctp 10.96.1.1:80 refused", "c tcp 10.96.1.1 refused", "c:x tcp 10.96.1.1:80 refused", "  hythe a=c Why",
		"c tcp 10.96.1.1:80 refused\n  cilium a=c Why", "c tcp 10.96.1.1:80 refused\n  hythe a=c", "c tcp 10.96.1.1:80 a=c pause=long"} {
		if _, err := Read("x", []byte("-- objects.yaml --\n-- asks --\n"+bad+"\n")); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	if _, err := Read("x", []byte("-- asks --\n")); err == nil {
		t.Error("asks without objects are read")
	}
}

func TestSix(t *testing.T) {
	for text, want := range map[string]string{
		`["10.96.0.1"]`: `["fd00::a60:1"]`, "10.96.0.0/16": "fd00::a60:0/112", "0.0.0.0/0": "::/0", "127.0.0.1:30001": "[::1]:31401",
		"ipFamilies: [IPv4]": "ipFamilies: [IPv6]", "port: 80": "port: 80", "nodePort: 31399": "nodePort: 32799",
	} {
		if got := Six(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestMet(t *testing.T) {
	for _, test := range []struct {
		want, seen string
		met        bool
	}{
		{"a=c b=c", "a=c b=c", true}, {"a=c b=c", "a=c", false}, {"a=c", "a=c b=c", false}, {"refused", "dropped", false},
		{"one a=c b=c", "b=c", true}, {"one a=c b=c", "a=c b=c", false}, {"one a=c b=c", "d=c", false}, {"one a=c", "", false},
	} {
		if got := outcome(strings.Fields(test.want)).Met(strings.Fields(test.seen)); got != test.met {
			t.Errorf("want %q, seen %q: %v", test.want, test.seen, got)
		}
	}
}

// TestCases sees that all cases can be read, that each name in them is known, and that each decision is written down and used.
func TestCases(t *testing.T) {
	why, used := decisions(t), map[string]bool{}
	count := 0
	for _, f := range cases(t) {
		for i, s := range f.Steps {
			objectsOf(t, f, i+1)
			for _, a := range s.Asks {
				count++
				if _, pod := pods[a.From]; !pod && onLAN[a.From] == "" && a.From != "client2" {
					t.Errorf("%s: %s: nobody is called %s", f.Name, a, a.From)
				}
				for program, d := range a.Decided {
					used[d.Decision] = true
					if why[d.Decision] == "" || d.Outcome.String() == a.Want.String() {
						t.Errorf("%s: %s: %s does %s by %q: no such decision, or no difference", f.Name, a, program, d.Outcome, d.Decision)
					}
				}
			}
		}
	}
	for name := range why {
		if !used[name] {
			t.Errorf("decision %s has no case", name)
		}
	}
	t.Logf("%d cases", count)
}
