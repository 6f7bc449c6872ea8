package authz

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/xds"
)

// check is a question of Envoy's about a request.
func check(entry, host, uri string, headers ...string) *authv3.CheckRequest {
	h := &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: ":authority", RawValue: []byte(host)}, {Key: "x-forwarded-proto", RawValue: []byte("https")},
	}}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Headers = append(h.Headers, &corev3.HeaderValue{Key: strings.ToLower(headers[i]), RawValue: []byte(headers[i+1])})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{xds.AuthEntry: entry},
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "198.51.100.7"},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "POST", Host: host, Path: uri, HeaderMap: h,
		}},
	}}
}

// A rig is a Server, its table and an auth server.
type rig struct {
	*Server
	t     *testing.T
	table auth.Writer
	now   atomic.Int64
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	r := &rig{t: t}
	o.Table = filepath.Join(t.TempDir(), "auth.json")
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	o.Now = func() time.Time { return time.Unix(1000, 0).Add(time.Duration(r.now.Load())) }
	r.table.Path = o.Table
	r.Server = New(o)
	return r
}

func (r *rig) set(entries auth.Table) {
	r.t.Helper()
	if err := r.table.Set(entries, time.Unix(1, 0)); err != nil {
		r.t.Fatal(err)
	}
}

// ask returns the status, 200 for a yes, and the headers: "=" before those that the request gets, "-" those it loses, "+" of
// the answer.
func (r *rig) ask(c *authv3.CheckRequest) (int, []string) {
	r.t.Helper()
	resp, err := r.Check(r.t.Context(), c)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	add := func(mark string, list []*corev3.HeaderValueOption) {
		for _, h := range list {
			out = append(out, mark+h.GetHeader().GetKey()+": "+h.GetHeader().GetValue())
		}
	}
	if ok := resp.GetOkResponse(); ok != nil {
		if resp.GetStatus().GetCode() != 0 {
			r.t.Errorf("a yes with code %d", resp.GetStatus().GetCode())
		}
		add("=", ok.GetHeaders())
		add("+", ok.GetResponseHeadersToAdd())
		for _, name := range ok.GetHeadersToRemove() {
			out = append(out, "-"+name)
		}
		return 200, out
	}
	if resp.GetStatus().GetCode() == 0 {
		r.t.Error("a no with code 0")
	}
	add("+", resp.GetDeniedResponse().GetHeaders())
	return int(resp.GetDeniedResponse().GetStatus().GetCode()), out
}

func address(s *httptest.Server) netip.AddrPort {
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// entry asks a server at addresses.
func entry(a policy.ExternalAuth, addresses ...netip.AddrPort) auth.Entry {
	a.Scheme = "http"
	if a.URI == nil {
		a.URI = policy.Pattern{{Text: "/auth"}}
	}
	return auth.Entry{Ask: &auth.Ask{ExternalAuth: a, Targets: []auth.Target{{For: "*", Host: "auth.test", Addresses: addresses}}}}
}

// TestMeaning is what nginx makes of a server's answers.
func TestMeaning(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var status int
		_, _ = fmt.Sscan(req.Header.Get("Want"), &status)
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.Header().Set("X-User", "ada")
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("Location", "https://evil.test/")
		w.WriteHeader(status)
	}))
	defer s.Close()
	r := newRig(t, Options{})
	copies := []policy.HeaderCopy{{From: "x-user", To: "X-User"}, {From: "X-Email", To: "X-Email"}}
	signIn := policy.Pattern{{Text: "https://login.test/?rd="}, {Of: policy.PartScheme}, {Text: "://"}, {Of: policy.PartHost}, {Of: policy.PartEscapedURI}}
	r.set(auth.Table{
		"plain": entry(policy.ExternalAuth{Copy: copies}, address(s)),
		"login": entry(policy.ExternalAuth{SignIn: signIn}, address(s)),
	})
	for _, c := range []struct {
		entry, answer string
		status        int
		headers       []string
	}{
		{"plain", "200", 200, []string{"=X-User: ada", "+Set-Cookie: a=1", "+Set-Cookie: b=2", "-x-email"}},
		{"plain", "202", 200, []string{"=X-User: ada", "+Set-Cookie: a=1", "+Set-Cookie: b=2", "-x-email"}},
		{"plain", "299", 200, []string{"=X-User: ada", "+Set-Cookie: a=1", "+Set-Cookie: b=2", "-x-email"}},
		{"plain", "401", 401, []string{"+WWW-Authenticate: Bearer"}},
		{"plain", "403", 403, nil},
		{"plain", "302", 500, nil},
		{"plain", "404", 500, nil},
		{"plain", "500", 500, nil},
		{"login", "401", 302, []string{"+Location: https://login.test/?rd=https://a.test%2Fx%3Fy%3D1", "+Set-Cookie: a=1", "+Set-Cookie: b=2"}},
		{"login", "403", 403, nil},
		{"login", "204", 200, []string{"+Set-Cookie: a=1", "+Set-Cookie: b=2"}},
	} {
		status, headers := r.ask(check(c.entry, "a.test", "/x?y=1", "Want", c.answer))
		if status != c.status || !slices.Equal(headers, c.headers) {
			t.Errorf("%s, %s: %d %q, want %d %q", c.entry, c.answer, status, headers, c.status, c.headers)
		}
	}
}

// TestQuestion is what the server sees: the client's headers, and what nginx says of the request. No header of a connection, of
// a body or of another proxy goes on.
func TestQuestion(t *testing.T) {
	var mu sync.Mutex
	var got *http.Request
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		mu.Lock()
		got = req
		mu.Unlock()
	}))
	defer s.Close()
	r := newRig(t, Options{})
	a := policy.ExternalAuth{
		URI: policy.Pattern{{Text: "/auth?u="}, {Of: policy.PartURI}, {Text: "&t="}, {Of: policy.PartHeader, Text: "token"}, {Text: "&c="}, {Of: policy.PartCookie, Text: "s"}, {Text: "&g="}, {Of: policy.PartArgument, Text: "y"}},
		Headers: []policy.AskHeader{
			{Name: "X-Extra", Value: policy.Pattern{{Text: "from "}, {Of: policy.PartClient}, {Text: " by "}, {Of: policy.PartMethod}}}, {Name: "Secret"},
		},
	}
	r.set(auth.Table{"e": entry(a, address(s))})
	status, _ := r.ask(check("e", "a.test", "/x?y=1", "Cookie", "q=2; s=abc", "Authorization", "Bearer t", "Connection", "close, X-Hop", "X-Hop", "1",
		"Transfer-Encoding", "chunked", "Content-Length", "7", "Upgrade", "websocket", "Te", "trailers", "Expect", "100-continue", "X-Forwarded-Host", "evil",
		"X-Original-Url", "evil", "X-Real-Ip", "evil", "X-Envoy-Internal", "true", "X-Hythe-Server-Name", "=a.test", "Secret", "x", "Token", "a b:1#"))
	if status != 200 {
		t.Fatal(status)
	}
	if got.Method != http.MethodGet || got.Host != "auth.test" || got.ContentLength != 0 || len(got.TransferEncoding) > 0 {
		t.Errorf("%s for %s with body %d %v", got.Method, got.Host, got.ContentLength, got.TransferEncoding)
	}
	if want := "/auth?u=/x?y=1&t=a%20b:1"; got.RequestURI != want {
		t.Errorf("asked for %s, want %s", got.RequestURI, want)
	}
	for name, want := range map[string]string{
		"Cookie": "q=2; s=abc", "Authorization": "Bearer t", "X-Original-Url": "https://a.test/x?y=1", "X-Original-Method": "POST",
		"X-Sent-From": "nginx-ingress-controller", "X-Real-Ip": "198.51.100.7", "X-Forwarded-For": "198.51.100.7", "X-Auth-Request-Redirect": "/x?y=1",
		"X-Extra": "from 198.51.100.7 by POST", "X-Forwarded-Proto": "", "X-Forwarded-Host": "", "Connection": "", "X-Hop": "", "Upgrade": "",
		"Te": "", "Expect": "", "Content-Length": "", "X-Envoy-Internal": "", "X-Hythe-Server-Name": "", "Secret": "", "User-Agent": "", "Accept-Encoding": "", "X-Original-Uri": "",
	} {
		if got := strings.Join(got.Header.Values(name), "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// TestNobodyAnswers wants 503 for all that keeps the Server from knowing.
func TestNobodyAnswers(t *testing.T) {
	gone := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	nobody := address(gone)
	gone.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }))
	defer slow.Close()
	big := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Big", strings.Repeat("x", 100<<10))
	}))
	defer big.Close()
	r := newRig(t, Options{Timeout: 50 * time.Millisecond})
	if status, _ := r.ask(check("e", "a.test", "/")); status != 503 {
		t.Errorf("without a table: %d", status)
	}
	other := entry(policy.ExternalAuth{}, address(slow))
	other.Ask.Targets[0].For = "other.test"
	r.set(auth.Table{
		"empty": {}, "nowhere": entry(policy.ExternalAuth{}), "gone": entry(policy.ExternalAuth{}, nobody), "slow": entry(policy.ExternalAuth{}, address(slow)),
		"big": entry(policy.ExternalAuth{}, address(big)), "other": other,
	})
	for _, name := range []string{"", "unknown", "empty", "nowhere", "gone", "slow", "big", "other"} {
		if status, headers := r.ask(check(name, "a.test", "/")); status != 503 || len(headers) > 0 {
			t.Errorf("%q: %d %q", name, status, headers)
		}
	}
	if status, _ := r.ask(&authv3.CheckRequest{}); status != 503 {
		t.Errorf("without anything: %d", status)
	}
	if err := os.WriteFile(r.table.Path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _ := r.ask(check("gone", "a.test", "/")); status != 503 {
		t.Errorf("with a broken table: %d", status)
	}
}

// TestNextPod wants a pod that cannot be connected to to cost nothing.
func TestNextPod(t *testing.T) {
	gone := httptest.NewServer(nil)
	nobody := address(gone)
	gone.Close()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	r := newRig(t, Options{})
	r.set(auth.Table{"e": entry(policy.ExternalAuth{}, nobody, address(s))})
	for range 20 {
		if status, _ := r.ask(check("e", "a.test", "/")); status != 200 {
			t.Fatal(status)
		}
	}
}

// TestBoundOfQuestions wants 503 at once when too many questions are under way.
func TestBoundOfQuestions(t *testing.T) {
	arrived, free := make(chan struct{}, 2), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-free
	}))
	defer s.Close()
	r := newRig(t, Options{Asks: 2})
	r.set(auth.Table{"e": entry(policy.ExternalAuth{}, address(s))})
	var done sync.WaitGroup
	for range 2 {
		done.Go(func() {
			if status, _ := r.ask(check("e", "a.test", "/")); status != 200 {
				t.Error(status)
			}
		})
	}
	<-arrived
	<-arrived
	if status, _ := r.ask(check("e", "a.test", "/")); status != 503 {
		t.Errorf("one too many: %d", status)
	}
	close(free)
	done.Wait()
}

func TestCache(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Set-Cookie", fmt.Sprint("n=", asked.Add(1)))
		if req.Header.Get("Cookie") != "s=good" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer s.Close()
	r := newRig(t, Options{})
	a := policy.ExternalAuth{
		CacheKey: policy.Pattern{{Of: policy.PartCookie, Text: "s"}},
		CacheFor: []policy.CacheTime{{Status: 200, For: time.Minute}, {Status: 401, For: time.Second}},
	}
	r.set(auth.Table{"e": entry(a, address(s)), "f": entry(a, address(s))})
	step := func(what, entry, cookie string, status int, wantAsked int64) {
		t.Helper()
		got, headers := r.ask(check(entry, "a.test", "/", "Cookie", cookie))
		if got != status || asked.Load() != wantAsked {
			t.Errorf("%s: %d after %d questions, want %d after %d", what, got, asked.Load(), status, wantAsked)
		}
		if strings.Contains(fmt.Sprint(headers), "n=") && !strings.Contains(fmt.Sprint(headers), fmt.Sprint("n=", wantAsked)) {
			t.Errorf("%s: an old cookie: %q", what, headers)
		}
	}
	step("first", "e", "s=good", 200, 1)
	step("again", "e", "s=good", 200, 1)
	step("another entry", "f", "s=good", 200, 2)
	step("another cookie", "e", "s=bad", 401, 3)
	step("the other again", "e", "s=bad", 401, 3)
	step("without a key each is asked", "e", "", 401, 4)
	step("without a key each is asked", "e", "", 401, 5)
	r.now.Store(int64(2 * time.Second))
	step("the no has ended", "e", "s=bad", 401, 6)
	step("the yes has not", "e", "s=good", 200, 6)
	r.now.Store(int64(2 * time.Minute))
	step("the yes has ended", "e", "s=good", 200, 7)
	r.set(auth.Table{"e": entry(a, address(s)), "g": {}})
	step("the table has changed", "e", "s=good", 200, 8)
}

const apr1 = "$apr1$saltsalt$HIDXe7D36X22w1CH4M1cQ." // open sesame

// TestPasswords wants what nginx' auth_basic does, alone and together with a server.
func TestPasswords(t *testing.T) {
	r := newRig(t, Options{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Want") != "yes" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer s.Close()
	users := []auth.User{{Name: "ada", Hash: apr1}, {Name: "bob", Hash: "{PLAIN}x"}}
	// Who comes in by a password must not say what the server would say of him.
	copies := policy.ExternalAuth{Copy: []policy.HeaderCopy{{From: "X-User", To: "X-User"}}}
	both, either := entry(policy.ExternalAuth{}, address(s)), entry(copies, address(s))
	both.Users, both.Realm = users, "Staff"
	either.Users, either.Any = users, true
	r.set(auth.Table{"p": {Users: users, Realm: "Staff"}, "both": both, "either": either})
	const good, wrong, bob = "Basic YWRhOm9wZW4gc2VzYW1l", "Basic YWRhOm9wZW4gc2VzYW1m", "basic Ym9iOng="
	for _, c := range []struct {
		entry, authorization, want string
		status                     int
		headers                    string
	}{
		{"p", good, "", 200, "[-authorization]"},
		{"p", good, "", 200, "[-authorization]"},
		{"p", bob, "", 200, "[-authorization]"},
		{"p", wrong, "", 401, `[+WWW-Authenticate: Basic realm="Staff"]`},
		{"p", "", "", 401, `[+WWW-Authenticate: Basic realm="Staff"]`},
		{"p", "Basic Ym9iOm9wZW4gc2VzYW1l", "", 401, `[+WWW-Authenticate: Basic realm="Staff"]`},
		{"p", "Basic !", "", 401, `[+WWW-Authenticate: Basic realm="Staff"]`},
		{"p", "Bearer YWRhOm9wZW4gc2VzYW1l", "", 401, `[+WWW-Authenticate: Basic realm="Staff"]`},
		{"both", good, "yes", 200, "[-authorization]"},
		{"both", good, "", 401, "[]"},
		{"both", wrong, "yes", 401, `[+WWW-Authenticate: Basic realm="Staff"]`},
		{"either", good, "", 200, "[-authorization -x-user]"},
		{"either", wrong, "yes", 200, "[-x-user]"},
		{"either", wrong, "", 401, "[]"},
	} {
		headers := []string{"Want", c.want}
		if c.authorization != "" {
			headers = append(headers, "Authorization", c.authorization)
		}
		if status, got := r.ask(check(c.entry, "a.test", "/", headers...)); status != c.status || fmt.Sprint(got) != c.headers {
			t.Errorf("%s, %q, %q: %d %v, want %d %s", c.entry, c.authorization, c.want, status, got, c.status, c.headers)
		}
	}
	if n := len(r.right.byKey); n != 1 {
		t.Errorf("%d passwords are remembered", n)
	}
	if status, _ := r.ask(check("p", "a.test", "/", "Authorization", good, "Authorization", bob)); status != 401 {
		t.Errorf("with two of them: %d", status)
	}
	users[0].Hash = "$apr1$saltsalt$HIDXe7D36X22w1CH4M1cQ/"
	r.set(auth.Table{"p": {Users: users}})
	if status, _ := r.ask(check("p", "a.test", "/", "Authorization", good)); status != 401 {
		t.Errorf("with the old password: %d", status)
	}
}

// TestBoundOfComparisons wants 503 when too many wait, but not for whom is known.
func TestBoundOfComparisons(t *testing.T) {
	r := newRig(t, Options{Compares: 1, Waiting: 1})
	r.set(auth.Table{"p": {Users: []auth.User{{Name: "ada", Hash: apr1}}}})
	const good, wrong = "Basic YWRhOm9wZW4gc2VzYW1l", "Basic YWRhOm9wZW4gc2VzYW1m"
	if status, _ := r.ask(check("p", "a.test", "/", "Authorization", good)); status != 200 {
		t.Fatal(status)
	}
	r.waiting <- struct{}{}
	atOnce, cancelAtOnce := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancelAtOnce()
	if resp, err := r.Check(atOnce, check("p", "a.test", "/", "Authorization", wrong)); err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 503 || atOnce.Err() != nil {
		t.Errorf("one who is not known: %v, %v, %v", resp, err, atOnce.Err())
	}
	if status, _ := r.ask(check("p", "a.test", "/", "Authorization", good)); status != 200 {
		t.Errorf("one who is known: %d", status)
	}
	<-r.waiting
	r.compare <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if resp, err := r.Check(ctx, check("p", "a.test", "/", "Authorization", wrong)); err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 503 {
		t.Errorf("whose client is gone: %v, %v", resp, err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory[int](10, 1000)
	now := time.Unix(1000, 0)
	for i := range 100 {
		m.put(key{byte(i)}, i, 10, now.Add(time.Minute))
		m.get(key{0}, now)
	}
	if len(m.byKey) != 10 || m.order.Len() != 10 || m.bytes != 100 {
		t.Errorf("%d entries, %d bytes", len(m.byKey), m.bytes)
	}
	if _, ok := m.get(key{0}, now); !ok {
		t.Error("the one that is used is gone")
	}
	m.put(key{200}, 1, 11, now.Add(time.Minute))
	if _, ok := m.get(key{200}, now); ok {
		t.Error("a large one is kept")
	}
	if _, ok := m.get(key{0}, now.Add(time.Hour)); ok || len(m.byKey) != 9 {
		t.Error("an old one is kept")
	}
}

func FuzzTarget(f *testing.F) {
	f.Add("/a?b=c#d")
	f.Add("//evil.test/x")
	f.Add("/x\r\nHost: evil")
	f.Fuzz(func(t *testing.T, uri string) {
		u := target(uri)
		got := u.RequestURI()
		if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.ContainsAny(got, " \t\r\n#\x00\x7f") {
			t.Errorf("%q becomes %q", uri, got)
		}
	})
}

// TestForeign asks servers by their names, as an administrator has granted it: those with a certificate must show that it is
// theirs.
func TestForeign(t *testing.T) {
	yes := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	s, encrypted := httptest.NewServer(yes), httptest.NewTLSServer(yes)
	defer s.Close()
	defer encrypted.Close()
	named := func(to *httptest.Server, tls bool) auth.Entry {
		e := entry(policy.ExternalAuth{})
		e.Ask.Targets[0].Name, e.Ask.Targets[0].TLS = fmt.Sprintf("localhost:%d", address(to).Port()), tls
		return e
	}
	r := newRig(t, Options{})
	r.set(auth.Table{"plain": named(s, false), "tls": named(encrypted, true)})
	if status, _ := r.ask(check("plain", "a.test", "/")); status != 200 {
		t.Errorf("a server by its name: %d", status)
	}
	if status, _ := r.ask(check("tls", "a.test", "/")); status != 503 {
		t.Errorf("a server whose certificate is nobody's: %d", status)
	}
}
