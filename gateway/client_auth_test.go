package gateway

import (
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/authority"
)

// TestSubjectPattern compares subjects as Envoy does: the whole header must match.
func TestSubjectPattern(t *testing.T) {
	for _, c := range []struct {
		expression, subject string
		want                bool
	}{
		{"ann", "CN=ann", true},
		{"ann", "CN=ann,OU=x,O=shop", true},
		{"ann", "O=shop,CN=ann", true},
		{"ann", "O=shop+CN=ann,C=x", true},
		{"ann", "CN=anna", false},
		{"ann", "CN=Ann", false},
		{"ann", "OU=CN=ann", false},
		{"ann", `O=x\,CN=ann`, false},
		{"ann", `O=x\\,CN=ann`, true}, // an organisation that ends in a backslash
		{"ann", `O=x\\\,CN=ann`, false},
		{"ann", `O=x\+CN=ann`, false},
		{"ann", "", false},
		{"(ann|bob)", "CN=bob,O=x", true},
		{"ann|bob", "CN=bob,O=x", true},
		{"ann|bob", "O=x,bob", false},
		{".*", "CN=,O=x", true},
		{".*ann", "CN=x,O=ann", false},
		{".*ann", `CN=x\,ann`, false}, // a comma in a name is to be written out
		{`x\\,ann`, `CN=x\,ann`, true},
		{"[^x]+", "CN=y,O=y", true},
		{"[^x]+ann", "CN=y,O=yann", false},
		{"ann,O=shop", "CN=ann,O=shop", true},
		{"ann,O=shop", "CN=ann,O=bank", false},
		{`\w+ lee`, "CN=ann lee", true},
		{"(?i)ann", "CN=ANN", true},
	} {
		pattern, err := subjectPattern(c.expression)
		if err != nil {
			t.Errorf("%q: %v", c.expression, err)
			continue
		}
		if got := regexp.MustCompile("^(?:" + pattern + ")$").MatchString(c.subject); got != c.want {
			t.Errorf("%q takes %q: %t, want %t", c.expression, c.subject, got, c.want)
		}
	}
	for _, bad := range []string{"(", "a\nb", "ä", strings.Repeat("a", 2000), "[,+]", "(?=a)", "a{1000}{1000}"} {
		if pattern, err := subjectPattern(bad); err == nil {
			t.Errorf("%q becomes %q", bad, pattern)
		}
	}
}

// No expression lets a name in by what stands in other attributes, whose values clients may have chosen.
func FuzzSubjectPattern(f *testing.F) {
	for _, seed := range []string{"ann", ".*ann", "[^x]+", `\W+`, "(?s).*", "(a|b)*", `\x2c`} {
		f.Add(seed, "x,CN=ann")
	}
	f.Fuzz(func(t *testing.T, expression, organisation string) {
		pattern, err := subjectPattern(expression)
		if err != nil || strings.ContainsAny(expression, `,+\`) || strings.ContainsFunc(organisation, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
			return
		}
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		if err != nil {
			t.Fatalf("%q becomes %q: %v", expression, pattern, err)
		}
		escaped := strings.NewReplacer(`\`, `\\`, ",", `\,`, "+", `\+`).Replace(organisation)
		if alone := re.MatchString("CN=someone"); re.MatchString("CN=someone,O="+escaped) != alone || re.MatchString("O="+escaped+",CN=someone") != alone {
			t.Errorf("%q takes %q beside O=%q, or not as alone (%t)", expression, "CN=someone", escaped, alone)
		}
	})
}

// TestClientAuthorities tells what refuses clients although it can be read.
func TestClientAuthorities(t *testing.T) {
	red, blue := authority.New(t, "red", nil), authority.New(t, "blue", nil)
	now := time.Now()
	hour := now.Add(time.Hour)
	for name, c := range map[string]struct {
		ca, crl []byte
		now     time.Time
		notes   []string // parts of them
		err     string
	}{
		"good":           {ca: red.PEM(), now: now},
		"good list":      {ca: red.PEM(), crl: red.List(t, hour), now: now},
		"old authority":  {ca: red.PEM(), now: now.AddDate(1, 0, 0), notes: []string{"expired on"}},
		"no time":        {ca: red.PEM(), crl: red.List(t, now.Add(-time.Minute))},
		"old list":       {ca: red.PEM(), crl: red.List(t, now.Add(-time.Minute)), now: now, notes: []string{"was to be renewed"}},
		"one list":       {ca: append(red.PEM(), blue.PEM()...), crl: red.List(t, hour), now: now, notes: []string{"has no list in ca.crl of"}},
		"nothing":        {err: "no readable PEM certificates"},
		"half a bundle":  {ca: append(red.PEM(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...), err: "no readable PEM certificates"},
		"foreign list":   {ca: red.PEM(), crl: blue.List(t, hour), err: "no certificate in ca.crt has signed"},
		"no list":        {ca: red.PEM(), crl: []byte("none"), err: "no PEM list"},
		"half a list":    {ca: red.PEM(), crl: append(red.List(t, hour), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"...), err: "number 2, that cannot be parsed"},
		"empty list key": {ca: red.PEM(), crl: []byte(" \n"), now: now},
	} {
		_, notes, err := readClientAuthorities(&corev1.Secret{Data: map[string][]byte{"ca.crt": c.ca, "ca.crl": c.crl}}, c.now)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", name, err, c.err)
		}
		if len(notes) != len(c.notes) || len(notes) > 0 && !strings.Contains(notes[0], c.notes[0]) {
			t.Errorf("%s: notes %q, want %q", name, notes, c.notes)
		}
	}
}
