package envoy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// A testPod answers requests with its name, as it is told to.
type testPod struct {
	status, health atomic.Int32 // of / and of /healthz
	requests       atomic.Int32 // to /
	checks         atomic.Int32
	host           atomic.Value // that the last health check named
	addr           netip.AddrPort
}

func newPod(t *testing.T, name string) *testPod {
	t.Helper()
	p := new(testPod)
	p.status.Store(200)
	p.health.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/healthz" {
			p.host.Store(req.Host)
			defer p.checks.Add(1)
			w.WriteHeader(int(p.health.Load()))
			return
		}
		p.requests.Add(1)
		w.WriteHeader(int(p.status.Load()))
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	p.addr = netip.MustParseAddrPort(s.Listener.Addr().String())
	return p
}

// checked waits for checks.
func (p *testPod) checked(t *testing.T, checks int32) {
	t.Helper()
	until := p.checks.Load() + checks
	for deadline := time.Now().Add(20 * time.Second); p.checks.Load() < until; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there are %d checks, want %d", p.checks.Load(), until)
		}
	}
}

// answer is the status and the text of an answer.
func answer(t *testing.T, r *envoytest.Rig) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Settings.HTTP.String()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "a.test"
	response, err := (&http.Client{Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// inARow asks till n answers in a row are as wanted.
func inARow(t *testing.T, r *envoytest.Rig, what string, n int, want func(status int, text string) bool) {
	t.Helper()
	row := 0
	for deadline := time.Now().Add(30 * time.Second); row < n; {
		status, text := answer(t, r)
		if row++; !want(status, text) {
			row = 0
			time.Sleep(10 * time.Millisecond)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: the last answer is %d %q", what, status, text)
		}
	}
}

// TestHealthChecks takes an endpoint that fails out, and in again, and none where all fail.
func TestHealthChecks(t *testing.T) {
	r := envoytest.New(t, nil)
	a, b := newPod(t, "a"), newPod(t, "b")
	c := envoytest.Config(t, "a.test", a.addr, b.addr)
	set(t, r, c)
	c.Backends[0].Pods.HealthCheck = policy.HealthCheck{Kind: policy.HealthHTTP, Path: "/healthz", Interval: 100 * time.Millisecond}
	r.Set(t, c)
	for range 50 { // a cluster that is changed goes on
		if status, _ := answer(t, r); status != 200 {
			t.Fatalf("while the checks begin the answer is %d", status)
		}
	}
	b.health.Store(503)
	inARow(t, r, "one fails", 30, func(status int, text string) bool { return status == 200 && text == "a" })
	if host := b.host.Load(); host != "web.shop" {
		t.Errorf("the check is for host %v", host)
	}
	b.health.Store(200)
	inARow(t, r, "it is well again", 1, func(_ int, text string) bool { return text == "b" })
	a.health.Store(404)
	b.health.Store(404)
	a.checked(t, 4)
	b.checked(t, 4)
	seen := map[string]bool{}
	for range 60 {
		status, text := answer(t, r)
		if seen[text] = true; status != 200 {
			t.Fatalf("while both fail the answer is %d", status)
		}
	}
	if !seen["a"] || !seen["b"] {
		t.Errorf("while both fail only %v get requests", seen)
	}
	// What Kubernetes takes away is gone at once, whatever the checks say.
	a.health.Store(200)
	b.health.Store(200)
	a.checked(t, 3)
	b.checked(t, 3)
	c.EndpointSets = []gateway.EndpointSet{{Name: "shop/web:http", Addresses: []netip.AddrPort{a.addr}}}
	set(t, r, c)
	for range 30 {
		if status, text := answer(t, r); status != 200 || text != "a" {
			t.Fatalf("an endpoint that is gone still answers: %d %q", status, text)
		}
	}
}

// TestEjection takes an endpoint out that answers 500 again and again, and not without the setting.
func TestEjection(t *testing.T) {
	r := envoytest.New(t, nil)
	a, b := newPod(t, "a"), newPod(t, "b")
	c := envoytest.Config(t, "a.test", a.addr, b.addr)
	b.status.Store(500)
	set(t, r, c)
	for range 60 {
		answer(t, r)
	}
	if n := b.requests.Load(); n < 10 {
		t.Errorf("without the setting an endpoint that answers 500 gets %d of 60 requests", n)
	}
	c.Backends[0].Pods.EjectAfter = 3
	set(t, r, c)
	inARow(t, r, "ejected", 30, func(status int, text string) bool { return status == 200 && text == "a" })
}

// TestMaxRequests answers 503 to what is more than a Service may have open.
func TestMaxRequests(t *testing.T) {
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	pod := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		entered <- struct{}{}
		<-leave
	}))
	defer pod.Close()
	let := sync.OnceFunc(func() { close(leave) })
	defer let()
	r := envoytest.New(t, nil)
	c := envoytest.Config(t, "a.test", netip.MustParseAddrPort(pod.Listener.Addr().String()))
	c.Backends[0].Pods.MaxRequests = 2
	set(t, r, c)
	var open sync.WaitGroup
	for range 2 {
		open.Go(func() {
			if status, _ := answer(t, r); status != 200 {
				t.Errorf("a request within the limit is answered %d", status)
			}
		})
		<-entered
	}
	if status, _ := answer(t, r); status != 503 {
		t.Errorf("a request above the limit is answered %d", status)
	}
	let()
	open.Wait()
	inARow(t, r, "afterwards", 1, func(status int, _ string) bool { return status == 200 })
}

// TestSlowStart gives a new endpoint less than its share.
func TestSlowStart(t *testing.T) {
	r := envoytest.New(t, nil)
	a, b := newPod(t, "a"), newPod(t, "b")
	c := envoytest.Config(t, "a.test", a.addr)
	const window = 3 * time.Second
	c.Backends[0].Pods.SlowStart = window
	set(t, r, c)
	time.Sleep(window + 100*time.Millisecond) // the first one is new, too
	c.EndpointSets = []gateway.EndpointSet{{Name: "shop/web:http", Addresses: []netip.AddrPort{a.addr, b.addr}}}
	set(t, r, c)
	begin := time.Now()
	const requests = 200
	for range requests {
		answer(t, r)
	}
	if took := time.Since(begin); took > window/3 {
		t.Skipf("this machine is too busy: %d requests took %s", requests, took)
	}
	if n := b.requests.Load(); n == 0 || n > requests/3 {
		t.Errorf("the new endpoint gets %d of %d requests", n, requests)
	}
}
