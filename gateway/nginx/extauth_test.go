package nginx

import (
	"strings"
	"testing"

	"hythe.dev/hythe/gateway/policy"
)

func TestAuthURL(t *testing.T) {
	for in, want := range map[string]string{ // "!" for an error
		"https://$host/oauth2/auth":                  "https://$host/oauth2/auth",
		"https://$http_host/a?u=$request_uri":        "https://$host/a?u={uri}",
		"http://auth":                                "http://auth/",
		"http://auth?code=200":                       "http://auth/?code=200",
		"HTTP://Auth.Shop.svc:8080/x/$uri#y":         "http://auth.shop.svc:8080/x/{path}",
		"http://auth/${http_x_a}&$cookie_s&$arg_q":   "http://auth/{header x-a}&{cookie s}&{argument q}",
		"http://auth/$request_method$scheme$args":    "http://auth/{method}{scheme}{query}",
		"auth.example.com/x":                         "!",
		"ftp://auth/x":                               "!",
		"http://user:password@auth/x":                "!",
		"http://$arg_host/x":                         "!",
		"http://$host.evil.test/x":                   "!",
		"http://auth:0/x":                            "!",
		"http://auth:99999/x":                        "!",
		"http://[::1]/x":                             "!",
		"https://invalid..auth.url":                  "!",
		"http://auth/x y":                            "!",
		"http://auth/x\r\nHost: evil":                "!",
		"http://auth/$":                              "!",
		"http://auth/$nosuch":                        "!",
		"http://auth/$upstream_http_x":               "!",
		"http:///x":                                  "!",
		"http://auth/" + strings.Repeat("x", 3000):   "!",
		"http://" + strings.Repeat("x", 300) + "/x/": "!",
	} {
		s, notes := Read(map[string]string{Prefix + "auth-url": in})
		switch bad := want == "!"; {
		case bad && (len(notes) != 1 || !notes[0].Closed || s.Auth.Asks()):
			t.Errorf("%q: %v, %v", in, s.Auth.URL(), notes)
		case !bad && (len(notes) > 0 || s.Auth.URL() != want):
			t.Errorf("%q: %s, %v, want %s", in, s.Auth.URL(), notes, want)
		}
	}
}

func TestSignIn(t *testing.T) {
	read := func(annotations ...string) Settings {
		all := map[string]string{Prefix + "auth-url": "http://auth"}
		for i := 0; i+1 < len(annotations); i += 2 {
			all[Prefix+annotations[i]] = annotations[i+1]
		}
		s, _ := Read(all)
		return s
	}
	for in, want := range map[string]string{
		"https://a/start":          "https://a/start?rd={scheme}://{host}{escaped-uri}",
		"https://a/start?rd=x":     "https://a/start?rd=x",
		"https://a/start?x=y":      "https://a/start?x=y&rd={scheme}://{host}{escaped-uri}",
		"$scheme://$host/s":        "{scheme}://{host}/s?rd={scheme}://{host}{escaped-uri}",
		"/login":                   "/login?rd={scheme}://{host}{escaped-uri}",
		"//evil.test":              "",
		"javascript:alert(1)":      "",
		"https://a/?e=$auth_error": "",
		"https://a/\r\nSet-Cookie": "",
	} {
		if got := read("auth-signin", in).Auth.SignIn.String(); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	s := read("auth-signin", "https://a/?rd=$auth_error", "auth-snippet", "auth_request_set $auth_error $upstream_http_x_err;")
	if got := s.Auth.SignIn.String(); got != "https://a/?rd={answer x-err}" || s.AuthFault != "" {
		t.Errorf("%s, %s", got, s.AuthFault)
	}
	if s := read("auth-signin", "https://a/?e=$auth_error"); s.AuthFault == "" {
		t.Error("an unknown variable is not told")
	}
}

func TestCacheDuration(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "[200 202 401]",
		"200 202 10m, 401 5s": "[200/10m 202/10m 401/5s]",
		"1h":                  "[0/1h]",
		"200 9999d":           "[200/24h]",
		"200":                 "[0/3m20s]",
		"200 x":               "[]",
		"abc 5m":              "[]",
	} {
		all := map[string]string{Prefix + "auth-url": "http://auth", Prefix + "auth-cache-key": "$cookie_s"}
		if in != "" {
			all[Prefix+"auth-cache-duration"] = in
		}
		s, _ := Read(all)
		var got []string
		for _, c := range s.Auth.CacheFor {
			got = append(got, cacheText(c, in == ""))
		}
		if text := "[" + strings.Join(got, " ") + "]"; text != want {
			t.Errorf("%q: %s, want %s", in, text, want)
		}
	}
}

func cacheText(c policy.CacheTime, statusOnly bool) string {
	d := c.For.String()
	for _, zero := range []string{"m0s", "h0m"} {
		d = strings.Replace(d, zero, zero[:1], 1)
	}
	out := map[int]string{0: "0", 200: "200", 202: "202", 401: "401"}[c.Status]
	if statusOnly {
		return out
	}
	return out + "/" + d
}

func FuzzPattern(f *testing.F) {
	f.Add("/a?u=$request_uri&x=${http_x}")
	f.Add("$")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePattern(text, nil)
		if err != nil {
			return
		}
		for _, part := range p {
			if part.Of >= policy.PartKinds || strings.ContainsAny(part.Text, " \r\n\t\"$") {
				t.Errorf("%q: %+v", text, p)
			}
		}
	})
}
