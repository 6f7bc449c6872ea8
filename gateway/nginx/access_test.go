package nginx

import (
	"strings"
	"testing"
)

func TestSnippet(t *testing.T) {
	for text, want := range map[string]string{ // the Route's String, or what the error has after "!"
		"":                                        "",
		"# only a comment":                        "",
		"more_set_headers 'A: b;c';":              `response="A=b;c"`,
		`more_set_headers "A: \"b\"";`:            `response="A=\"b\""`,
		"more_set_headers 'A: ${host}x%';":        `response="A={host}x%"`,
		"more_set_headers -s 404 'A: b';":         "!options are not understood",
		"more_set_headers 'A: b' 'C: d'":          "!no semicolon",
		"more_set_headers 'A: b'x;":               "!text directly after",
		"more_set_headers 'A: b;":                 "!quote is not closed",
		"more_set_headers 'Host: b';":             "!cannot be set",
		"more_set_headers 'X-Envoy-A: b';":        "!cannot be set",
		"more_set_headers 'A: \x01';":             "!not printable",
		"more_set_headers 'A: $';":                "!not known here",
		"proxy_set_header Host other.test;":       "host=other.test",
		"proxy_set_header Upgrade $http_upgrade;": "",
		"return 403;":                             "answer=403",
		"return 444;":                             "!not a status",
		"return 302 /login;":                      "!not a URL",
		"return 302 https://a.test/$uri;":         "!variable",
		"return 302 https://a.test;":              "redirect=302:https://a.test/",
		";":                                       "!without a directive",
		"allow 10.0.0.0/8; deny all;":             `!"allow"`,
		"location /x { deny all; }":               "!has a block",
		"proxy_buffering off;":                    "!the rest of it holds",
	} {
		var s Settings
		err := snippet(&s, text)
		if message, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%q: %v, want %s", text, err, message)
			}
		} else if err != nil || s.Route.String() != want {
			t.Errorf("%q: %s %v, want %s", text, s.Route.String(), err, want)
		}
	}
}

func FuzzSnippet(f *testing.F) {
	f.Add(`more_set_headers "A: b"; add_header 'c' $host always; # x` + "\nreturn 301 https://a.test/;")
	f.Fuzz(func(t *testing.T, text string) {
		var s Settings
		if snippet(&s, text) != nil {
			return
		}
		for _, h := range append(s.Route.RequestHeaders, s.Route.ResponseHeaders...) {
			if strings.ContainsAny(h.String(), "\r\n\x00") {
				t.Errorf("%q makes %q", text, h)
			}
		}
	})
}
