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
		"no list":    {in: map[string]string{"whitelist-source-range": ""}},
		"empty list": {in: map[string]string{"whitelist-source-range": " , "}, note: "names no address"},
		"bad list":   {in: map[string]string{"denylist-source-range": "10.0.0.0/8,x"}, note: `"x" is neither`},
		"protocol":   {in: map[string]string{"backend-protocol": "grpcs"}, want: Settings{Backend: policy.Backend{Protocol: policy.H2}}},
		"not yet":    {in: map[string]string{"limit-connections": "5"}, note: ""},
		"canary": {in: map[string]string{"canary": "true", "canary-weight": "30", "canary-weight-total": "20", "canary-by-header-value": "x", "canary-by-header": "X-A", "canary-by-header-pattern": "("},
			want: Settings{Canary: true, CanaryBy: policy.Canary{Header: "X-A", Value: "x", Weight: 20, Total: 20}}, note: "RE2"},
		"bad pattern": {in: map[string]string{"canary": "true", "canary-by-header": "X-A", "canary-by-header-pattern": "("},
			want: Settings{Canary: true, CanaryBy: policy.Canary{Total: 100}}, note: "RE2"},
		"no canary": {in: map[string]string{"canary-weight": "30", "canary-by-cookie": "c"}},
		"session": {in: map[string]string{"affinity": "cookie", "session-cookie-expires": "60", "session-cookie-samesite": "lax"},
			want: Settings{Route: policy.Route{Session: policy.Session{Cookie: "INGRESSCOOKIE", MaxAge: time.Minute, SameSite: "Lax"}}}},
		"no session":    {in: map[string]string{"session-cookie-name": "a", "session-cookie-expires": "60"}},
		"cookie name":   {in: map[string]string{"affinity": "cookie", "session-cookie-name": "a;b"}, note: "no name", want: Settings{Route: policy.Route{Session: policy.Session{Cookie: "INGRESSCOOKIE"}}}},
		"limits":        {in: map[string]string{"limit-rps": "5", "limit-burst-multiplier": "2"}, want: Settings{Route: policy.Route{Limits: policy.Limits{PerSecond: 5, Burst: 2}}}},
		"no limits":     {in: map[string]string{"limit-burst-multiplier": "2", "limit-whitelist": "10.0.0.0/8"}},
		"negative":      {in: map[string]string{"limit-rps": "-1"}, note: "not a number"},
		"hash":          {in: map[string]string{"upstream-hash-by": "${host}x$http_x_user$arg_id", "load-balance": "round_robin"}, want: Settings{Route: policy.Route{Hash: []policy.HashKey{{Of: policy.HashHost}, {Of: policy.HashHeader, Name: "x-user"}, {Of: policy.HashQuery, Name: "id"}}}, Backend: policy.Backend{Balance: policy.Hashed}}},
		"hash variable": {in: map[string]string{"upstream-hash-by": "$host$request_id"}, note: "$request_id is not known"},
		"retry":         {in: map[string]string{"proxy-next-upstream": "error http_503 http_502", "proxy-next-upstream-tries": "0"}, want: Settings{Route: policy.Route{Retry: policy.Retry{Reset: true, Statuses: []uint32{502, 503}, Tries: 10}}}},
		"no retry":      {in: map[string]string{"proxy-next-upstream": "off http_503"}, want: Settings{Route: policy.Route{Retry: policy.Retry{Off: true}}}},
		"mirror":        {in: map[string]string{"mirror-target": "https://copy.shop.svc/$request_uri", "mirror-host": "x.test"}, want: Settings{Mirror: Mirror{Service: "copy", Namespace: "shop", Port: 443, TLS: true, Host: "x.test"}}},
		"mirror body":   {in: map[string]string{"mirror-target": "http://copy", "mirror-request-body": "off"}, note: "not mirrored at all"},
		"mirror path":   {in: map[string]string{"mirror-target": "http://copy/other"}, note: "without a path"},
		"mirror away":   {in: map[string]string{"mirror-target": "http://www.example.com/"}, note: "not a Service"},
		"mirror user":   {in: map[string]string{"mirror-target": "http://copy@www.example.com/"}, note: "must be the URL"},
		"unknown":       {in: map[string]string{"no-such-thing": "5"}, note: ""},
		"verification":  {in: map[string]string{"proxy-ssl-verify": "yes"}, note: "neither"},
		"upstream":      {in: map[string]string{"proxy-ssl-secret": "shop/ca", "proxy-ssl-verify": "on", "proxy-ssl-name": "Pod.test", "proxy-ssl-server-name": "on", "proxy-ssl-verify-depth": "2", "proxy-ssl-protocols": "TLSv1.1 TLSv1.2"}, want: Settings{Upstream: policy.Upstream{Secret: "shop/ca", Verify: true, Name: "pod.test", SendName: true, Depth: 2, Lowest: policy.TLS12, Highest: policy.TLS12}}},
		"upstream name": {in: map[string]string{"proxy-ssl-name": "$host"}, note: "no host name"},
		"upstream ref":  {in: map[string]string{"proxy-ssl-secret": "ca"}, note: "NAMESPACE/NAME"},
		"passthrough":   {in: map[string]string{"ssl-passthrough": "true"}, want: Settings{Passthrough: true}},
		"permanent":     {in: map[string]string{"permanent-redirect": "https://a.test/x?y=1", "permanent-redirect-code": "308"}, want: Settings{Route: policy.Route{Redirect: policy.Redirect{Scheme: "https", Host: "a.test", Path: "/x?y=1", Code: 308}}}},
		"temporal":      {in: map[string]string{"permanent-redirect": "https://a.test", "temporal-redirect": "http://b.test:8080${request_uri}", "configuration-snippet": "return 403;"}, want: Settings{Route: policy.Route{Redirect: policy.Redirect{Scheme: "http", Host: "b.test", Port: 8080, KeepPath: true, KeepQuery: true, Code: 302}}}},
		"relative":      {in: map[string]string{"permanent-redirect": "/new", "relative-redirects": "true", "app-root": "/a?b"}, want: Settings{Host: policy.Host{AppRoot: "/a?b", RelativeRoot: true}, Route: policy.Route{Redirect: policy.Redirect{Path: "/new", Relative: true, Code: 301}}}},
		"keep query":    {in: map[string]string{"permanent-redirect": "$scheme://$http_host/new$is_args$args"}, want: Settings{Route: policy.Route{Redirect: policy.Redirect{Path: "/new", KeepQuery: true, Code: 301}}}},
		"groups":        {in: map[string]string{"permanent-redirect": "https://$host/$1/$2"}, want: Settings{Route: policy.Route{Redirect: policy.Redirect{Scheme: "https", Path: "/$1/$2", Code: 301}}}},
		"no place":      {in: map[string]string{"permanent-redirect": "ftp://a.test"}, note: "no scheme"},
		"newline":       {in: map[string]string{"permanent-redirect": "https://a.test/\r\nX: y"}, note: "no path has"},
		"user":          {in: map[string]string{"permanent-redirect": "https://a.test@b.test/"}, note: "no path has"},
		"two slashes":   {in: map[string]string{"temporal-redirect": "//b.test/"}, note: "empty path"},
		"bad port":      {in: map[string]string{"temporal-redirect": "https://b.test:99999/"}, note: "no port"},
		"bad variable":  {in: map[string]string{"temporal-redirect": "https://b.test/$request_id"}, note: "not understood"},
		"both queries":  {in: map[string]string{"temporal-redirect": "https://b.test/?a=$request_uri"}, note: "beside what it keeps"},
		"not a code":    {in: map[string]string{"permanent-redirect-code": "304"}, note: "is not 301"},
		"root loop":     {in: map[string]string{"app-root": "/#x"}, note: "to itself"},
		"root away":     {in: map[string]string{"app-root": "https://b.test/"}, note: "begins with one /"},
		"aliases":       {in: map[string]string{"server-alias": "b.test, ,c.test,b.test"}, want: Settings{Host: policy.Host{Aliases: []string{"b.test", "c.test"}}}},
		"alias regex":   {in: map[string]string{"server-alias": "b.test,~x"}, want: Settings{Host: policy.Host{Aliases: []string{"b.test"}}}, note: `not "~x"`},
		"prefix":        {in: map[string]string{"x-forwarded-prefix": "/app"}, want: Settings{Route: policy.Route{RequestHeaders: []policy.Header{{Name: "X-Forwarded-Prefix", Value: policy.Literal("/app")}}}}},
		"prefix lines":  {in: map[string]string{"x-forwarded-prefix": "/app\r\nX: y"}, note: "must be a path"},
		"errors":        {in: map[string]string{"default-backend": "pages", "custom-http-errors": "503, 404,404"}, want: Settings{ErrorPages: ErrorPages{Service: "pages", Statuses: []uint32{404, 503}}}},
		"errors alone":  {in: map[string]string{"custom-http-errors": "503"}},
		"errors off":    {in: map[string]string{"default-backend": "pages", "custom-http-errors": "503", "disable-proxy-intercept-errors": "true"}, want: Settings{ErrorPages: ErrorPages{Service: "pages"}}},
		"no error":      {in: map[string]string{"custom-http-errors": "503,302"}, note: "from 400 to 599"},
		"pages away":    {in: map[string]string{"default-backend": "other/pages"}, note: "same namespace"},
		"cookies":       {in: map[string]string{"proxy-cookie-domain": ".A.test b.test", "proxy-cookie-path": "/one/ /"}, want: Settings{Route: policy.Route{Answers: policy.Answers{CookieDomain: policy.Replacement{From: "a.test", To: "b.test"}, CookiePath: policy.Replacement{From: "/one/", To: "/"}}}}},
		"cookie words":  {in: map[string]string{"proxy-cookie-domain": "a.test"}, note: "two words"},
		"cookie inject": {in: map[string]string{"proxy-cookie-path": "/ /;Secure"}, note: "not understood"},
		"location":      {in: map[string]string{"proxy-redirect-from": "http://$host", "proxy-redirect-to": "https://x"}, want: Settings{Route: policy.Route{Answers: policy.Answers{LocationFrom: []policy.HeaderPart{{Text: "http://"}, {Of: policy.HeaderHost}}, LocationTo: policy.Literal("https://x")}}}},
		"location off":  {in: map[string]string{"proxy-redirect-from": "off", "proxy-redirect-to": "https://x"}},
		"location half": {in: map[string]string{"proxy-redirect-to": "https://x"}, note: "only together"},
		"location what": {in: map[string]string{"proxy-redirect-from": "http://$server_port"}, note: "$scheme and $host"},
		"quiet":         {in: map[string]string{"enable-access-log": "false"}, want: Settings{Route: policy.Route{Quiet: true}}},
		"neither on":    {in: map[string]string{"ssl-redirect": "maybe"}, note: "neither"},
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
