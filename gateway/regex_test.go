package gateway

import (
	"regexp"
	"strings"
	"testing"
)

func TestCheckRegex(t *testing.T) {
	for in, want := range map[string]string{
		`/api(/|$)(.*)`:                 "",
		`/foo\p{Letter}[a-z]*`:          "",
		`/(?P<name>x)/(?<other>y)`:      "",
		`/[^/]+/é`:                      "beyond ASCII",
		`/\x{e9}`:                       "no request has",
		`/[\x{4e00}-\x{4eff}]`:          "no request has",
		`/a(?=b)`:                       "no regular expression",
		`/(a)\1`:                        "no regular expression",
		`/[`:                            "no regular expression",
		`/(.{500}){500}`:                "",
		`/(x+x+){900}y`:                 "too large",
		`/[[:punct:]]{400}`:             "too large",
		`/\W{400}`:                      "too large",
		`/a b`:                          "has a space",
		`^/a`:                           "must start with a slash",
		"/" + strings.Repeat("a", 1000): "longer than",
	} {
		got, err := checkRegex(in)
		if in == `/(.{500}){500}` { // either of two reasons
			if err == nil {
				t.Errorf("%s is taken", in)
			}
			continue
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
		if err == nil {
			if _, err := regexp.Compile(got); err != nil || strings.Contains(got, "<") || strings.Contains(got, `\p`) {
				t.Errorf("%s became %s (%v)", in, got, err)
			}
		}
	}
}
