package nginx

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// named starts a server that answers its name and the Host that it saw, and sends the latter to seen, if there is one.
func named(t *testing.T, name string, seen chan<- string) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			select {
			case seen <- r.Host + r.RequestURI:
			default:
			}
		}
		fmt.Fprint(w, name)
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// fetch asks for a path of a.test and returns the answer's body and cookies.
func fetch(t *testing.T, r *envoytest.Rig, path string, header ...string) (string, []*http.Cookie) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Settings.HTTP.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "a.test"
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v: %s", resp.StatusCode, err, body)
	}
	return string(body), resp.Cookies()
}

// until asks again until an answer is right: Envoy acknowledges before its workers have a configuration.
func until(t *testing.T, what string, right func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !right(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func config(t *testing.T, p *policy.Route, b policy.Backend, endpoints ...netip.AddrPort) gateway.Config {
	t.Helper()
	c := envoytest.Config(t, "a.test", endpoints...)
	c.Backends[0].Backend = b
	c.Hosts[0].Routes[0].Policy = p
	return c
}

// TestAffinity wants clients to stay with their pod while others come and go, and to get another one when it is gone.
func TestAffinity(t *testing.T) {
	r := envoytest.New(t, nil)
	var all []netip.AddrPort
	for i := range 6 {
		all = append(all, named(t, fmt.Sprint("pod", i), nil))
	}
	p := &policy.Route{Session: policy.Session{Cookie: "S"}}
	c := config(t, p, policy.Backend{}, all[:3]...)
	r.Set(t, c)
	var cookie *http.Cookie
	var home string
	until(t, "a cookie", func() bool {
		body, cookies := fetch(t, r, "/")
		if len(cookies) == 1 {
			home, cookie = body, cookies[0]
		}
		return cookie != nil
	})
	stays := func(when string) {
		t.Helper()
		for range 30 {
			if body, cookies := fetch(t, r, "/", "Cookie", "S="+cookie.Value); body != home || len(cookies) > 0 {
				t.Fatalf("%s: %s with cookies %v, want %s", when, body, cookies, home)
			}
		}
	}
	stays("nothing changed")
	mine := int(home[3] - '0')
	c.EndpointSets[0].Addresses = append([]netip.AddrPort{all[mine]}, all[3:]...)
	r.Set(t, c)
	until(t, "new pods", func() bool { body, _ := fetch(t, r, "/"); return body >= "pod3" })
	stays("all other pods changed")
	c.EndpointSets[0].Addresses = all[3:]
	r.Set(t, c)
	until(t, "a new cookie", func() bool {
		body, cookies := fetch(t, r, "/", "Cookie", "S="+cookie.Value)
		return body != home && len(cookies) == 1
	})
}

// TestCanaryAffinity wants clients of a session to stay with the backend that served them first, whatever the weight says.
func TestCanaryAffinity(t *testing.T) {
	r := envoytest.New(t, nil)
	c := config(t, &policy.Route{Session: policy.Session{Cookie: "S"}}, policy.Backend{}, named(t, "main", nil))
	c.Backends = append([]gateway.Backend{{Name: "shop/next:http", Endpoints: "shop/next:http"}}, c.Backends...)
	c.EndpointSets = append([]gateway.EndpointSet{{Name: "shop/next:http", Addresses: []netip.AddrPort{named(t, "next", nil)}}}, c.EndpointSets...)
	canary := &gateway.Canary{Backend: "shop/next:http", Canary: policy.Canary{Weight: 300, Total: 1000, Header: "X"}}
	c.Hosts[0].Routes[0].Canary = canary
	r.Set(t, c)
	cookies := map[string]string{}
	count := map[string]int{}
	until(t, "both backends", func() bool {
		body, set := fetch(t, r, "/")
		count[body]++
		for _, s := range set {
			cookies[body] = s.Name + "=" + s.Value
		}
		return len(cookies) == 2
	})
	for range 1000 {
		body, _ := fetch(t, r, "/")
		count[body]++
	}
	if n := count["next"]; n < 150 || n > 450 { // ten standard deviations
		t.Errorf("%d of about 1000 requests went to the canary, want about 300", n)
	}
	for name, value := range cookies {
		for range 30 {
			if body, _ := fetch(t, r, "/", "Cookie", value); body != name {
				t.Fatalf("a client of %s came to %s", name, body)
			}
		}
	}
	if body, _ := fetch(t, r, "/", "Cookie", cookies["main"], "X", "always"); body != "main" {
		t.Errorf("a header moves a client with a session to %s", body)
	}
}

// TestHash wants equal keys to go to one pod, and only keys of a pod that is gone to move far.
func TestHash(t *testing.T) {
	r := envoytest.New(t, nil)
	var all []netip.AddrPort
	for i := range 4 {
		all = append(all, named(t, fmt.Sprint("pod", i), nil))
	}
	p := &policy.Route{Hash: []policy.HashKey{{Of: policy.HashQuery, Name: "user"}, {Of: policy.HashHeader, Name: "X-Tenant"}}}
	c := config(t, p, policy.Backend{Balance: policy.Hashed}, all...)
	c.Backends[0].Name += c.Backends[0].String()
	c.Hosts[0].Routes[0].Backend = c.Backends[0].Name
	r.Set(t, c)
	homes := func() map[string]string {
		out := map[string]string{}
		for i := range 60 {
			out[fmt.Sprint(i)], _ = fetch(t, r, fmt.Sprintf("/%d?user=%d", i, i), "X-Tenant", "a")
		}
		return out
	}
	var before map[string]string
	until(t, "equal answers", func() bool {
		before = homes()
		return fmt.Sprint(before) == fmt.Sprint(homes())
	})
	pods := map[string]bool{}
	for _, pod := range before {
		pods[pod] = true
	}
	if len(pods) != 4 {
		t.Errorf("60 users are on %v", pods)
	}
	c.EndpointSets[0].Addresses = all[:3]
	r.Set(t, c)
	until(t, "a pod to go", func() bool { return !strings.Contains(fmt.Sprint(homes()), "pod3") })
	moved := 0
	for user, pod := range homes() {
		if before[user] != "pod3" && before[user] != pod {
			moved++
		}
	}
	if moved > 20 { // of some 45; without a stable hash 30 would move
		t.Errorf("%d of 60 users moved whose pod is still there", moved)
	}
}

// TestMirror wants copies of requests, with the path that they had and the Host of the mirror.
func TestMirror(t *testing.T) {
	r := envoytest.New(t, nil)
	copies := make(chan string, 10)
	c := config(t, nil, policy.Backend{}, named(t, "main", nil))
	c.Backends = append([]gateway.Backend{{Name: "shop/copy:http", Endpoints: "shop/copy:http"}}, c.Backends...)
	c.EndpointSets = append([]gateway.EndpointSet{{Name: "shop/copy:http", Addresses: []netip.AddrPort{named(t, "copy", copies)}}}, c.EndpointSets...)
	c.Hosts[0].Routes[0].Mirror = &gateway.Mirror{Backend: "shop/copy:http", Host: "copy.shop.svc"}
	r.Set(t, c)
	until(t, "a copy", func() bool {
		if body, _ := fetch(t, r, "/x?y"); body != "main" {
			t.Fatalf("the answer is that of %s", body)
		}
		select {
		case got := <-copies:
			if got != "copy.shop.svc/x?y" {
				t.Fatalf("the copy is for %s", got)
			}
			return true
		case <-time.After(time.Second):
			return false
		}
	})
}

// TestBandwidth wants a limit of each answer, which does not depend on other answers.
func TestBandwidth(t *testing.T) {
	r := envoytest.New(t, nil)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 40<<10))
	}))
	t.Cleanup(s.Close)
	r.Set(t, config(t, &policy.Route{Limits: policy.Limits{Bandwidth: 20}}, policy.Backend{}, netip.MustParseAddrPort(s.Listener.Addr().String())))
	until(t, "a slow answer", func() bool {
		start := time.Now()
		fetch(t, r, "/")
		return time.Since(start) > time.Second // 40 KiB at 20 KiB/s; it cannot be faster than the limit
	})
}
