package nginx

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway/policy"
)

func TestRead(t *testing.T) {
	prefix := netip.MustParsePrefix
	for name, c := range map[string]struct {
		in   map[string]string // keys without "/" get the prefix
		want Settings
		note string // of the first Note
	}{
		"nothing":          {},
		"others":           {in: map[string]string{"example.com/rewrite-target": "/x", "ingress.kubernetes.io/not-nginx": "x"}},
		"rewrite":          {in: map[string]string{"rewrite-target": "/$2"}, want: Settings{Regex: true, Route: policy.Route{Rewrite: "/$2"}}},
		"rewrite variable": {in: map[string]string{"rewrite-target": "/$uri"}, want: Settings{Regex: true}, note: "no variables of nginx"},
		"rewrite query":    {in: map[string]string{"rewrite-target": "/x?a=$1"}, want: Settings{Regex: true}, note: "no query"},
		"rewrite newline":  {in: map[string]string{"rewrite-target": "/x\ny"}, want: Settings{Regex: true}, note: "must be a path"},
		"the longer":       {in: map[string]string{"proxy-read-timeout": "60", "proxy-send-timeout": "3600s"}, want: Settings{Route: policy.Route{Idle: time.Hour}}},
		"zero":             {in: map[string]string{"proxy-connect-timeout": "0"}, note: "not a number of seconds"},
		"huge":             {in: map[string]string{"proxy-read-timeout": "99999999999999999999"}, note: "not a number of seconds"},
		"size":             {in: map[string]string{"proxy-body-size": "8M"}, want: Settings{Route: policy.Route{MaxBody: 8 << 20}}},
		"no limit":         {in: map[string]string{"proxy-body-size": "0"}},
		"size overflows":   {in: map[string]string{"proxy-body-size": "99999999999g"}, note: "not a size"},
		"legacy":           {in: map[string]string{"ingress.kubernetes.io/force-ssl-redirect": "true"}, want: Settings{ForceRedirect: true}},
		"newer wins": {in: map[string]string{"ingress.kubernetes.io/proxy-body-size": "1k", "proxy-body-size": "2k"},
			want: Settings{Route: policy.Route{MaxBody: 2048}}},
		"force wins": {in: map[string]string{"force-ssl-redirect": "true", "ssl-redirect": "false"}, want: Settings{ForceRedirect: true}},
		"both lists": {in: map[string]string{"allowlist-source-range": "10.1.2.3/8", "whitelist-source-range": "::ffff:192.0.2.1, 10.0.0.0/8"},
			want: Settings{Route: policy.Route{Sources: policy.Sources{Allow: []netip.Prefix{prefix("10.0.0.0/8"), prefix("192.0.2.1/32")}}}}},
		"no list":      {in: map[string]string{"whitelist-source-range": ""}},
		"empty list":   {in: map[string]string{"whitelist-source-range": " , "}, note: "names no address"},
		"bad list":     {in: map[string]string{"denylist-source-range": "10.0.0.0/8,x"}, note: `"x" is neither`},
		"protocol":     {in: map[string]string{"backend-protocol": "grpcs"}, want: Settings{Backend: policy.Backend{Protocol: policy.H2}}},
		"not yet":      {in: map[string]string{"limit-rps": "5"}, note: ""},
		"unknown":      {in: map[string]string{"no-such-thing": "5"}, note: ""},
		"verification": {in: map[string]string{"proxy-ssl-verify": "on"}, note: "not verified"},
		"neither on":   {in: map[string]string{"ssl-redirect": "maybe"}, note: "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			in := map[string]string{}
			for k, v := range c.in {
				if !strings.Contains(k, "/") {
					k = Prefix + k
				}
				in[k] = v
			}
			got, notes := Read(in)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if c.note != "" && (len(notes) == 0 || !strings.Contains(notes[0].Message, c.note) || !strings.Contains(notes[0].Message, notes[0].Annotation)) {
				t.Errorf("notes %+v, want one that says %q and names the annotation", notes, c.note)
			}
			if c.note == "" && slices.ContainsFunc(notes, func(n Note) bool { return n.Reason != Ignored }) {
				t.Errorf("notes %+v", notes)
			}
		})
	}
}

// TestProtections: whatever a protecting annotation says, it is in Settings, or the paths are closed.
func TestProtections(t *testing.T) {
	for _, k := range Keys() {
		if !k.Protects {
			continue
		}
		settings, notes := Read(map[string]string{Prefix + k.Name: "cannot be read \x00"})
		if len(notes) != 1 || !notes[0].Closed {
			t.Errorf("%s: settings %+v, notes %+v: its paths are open", k.Name, settings, notes)
		}
	}
}

// TestTable wants of each key that somebody who reads the table knows where he stands.
func TestTable(t *testing.T) {
	for i, k := range Keys() {
		if i > 0 && Keys()[i-1].Name >= k.Name {
			t.Errorf("%s is there twice", k.Name)
		}
		done := k.Support == Full || k.Support == Nearest || k.Support == Safe
		if done && k.read == nil {
			t.Errorf("%s is done, and nothing reads it", k.Name)
		}
		if (k.Support == Nearest || k.Support == Safe || k.Support == Refused) && k.Note == "" {
			t.Errorf("%s needs a note", k.Name)
		}
	}
	if n := len(Keys()); n < 117 {
		t.Errorf("there are %d keys, ingress-nginx documents 117", n)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("rewrite-target", "/$1")
	f.Add("whitelist-source-range", "10.0.0.0/8")
	f.Add("proxy-body-size", "1m")
	f.Fuzz(func(t *testing.T, name, value string) {
		a := map[string]string{Prefix + name: value}
		s, n := Read(a)
		again, more := Read(a)
		if !reflect.DeepEqual(s, again) || !reflect.DeepEqual(n, more) {
			t.Error("two readings differ")
		}
	})
}
