package live

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/inspect"
)

func TestLogForgetsStrangersFirst(t *testing.T) {
	var l Log
	l.Get("cafe0001") // somebody is about to ask
	l.Add(inspect.LiveAnswer{ID: "cafe0001", Status: 200})
	for i := range 10 * keep {
		l.Add(inspect.LiveAnswer{ID: fmt.Sprintf("%08x", i)})
	}
	if got := l.Get("cafe0001"); len(got) != 1 || got[0].Status != 200 {
		t.Errorf("what was asked for is gone: %+v", got)
	}
	if n := len(l.entries); n > keep {
		t.Errorf("%d entries are kept", n)
	}
	for i := range 10 * keep {
		l.Get(fmt.Sprintf("%08x", i))
	}
	if n := len(l.asked); n > keep {
		t.Errorf("%d ids are kept", n)
	}
}

func TestReadKeepsNoSecrets(t *testing.T) {
	entry := &accesslogv3.HTTPAccessLogEntry{
		CommonProperties: &accesslogv3.AccessLogCommon{TimeToFirstUpstreamTxByte: durationpb.New(time.Millisecond)},
		Request: &accesslogv3.HTTPRequestProperties{
			RequestMethod: corev3.RequestMethod_GET, Path: "/cart?token=hidden", OriginalPath: "/?token=hidden",
			Referer: "https://hidden/", UserAgent: "hidden", ForwardedFor: "hidden", Authority: strings.Repeat("x", 10_000),
			RequestHeaders: map[string]string{"x-hythe-trace": "cafe0001", "cookie": "hidden", "authorization": "hidden"},
		},
	}
	got, ok := read(entry)
	if !ok {
		t.Fatal("the entry is not taken")
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hidden") {
		t.Errorf("kept: %s", text)
	}
	if got.Path != "/cart" || got.UpstreamConnected != time.Millisecond || got.FirstByte != -1 || len(got.Host) > maxText {
		t.Errorf("read %+v", got)
	}
	entry.Request.RequestHeaders["x-hythe-trace"] = "no mark"
	if _, ok := read(entry); ok {
		t.Error("an entry without a mark is taken")
	}
}

// TestEnvoyTellsOfMarkedRequests sends marked requests, unmarked ones and one with a wrong mark through a real Envoy.
func TestEnvoyTellsOfMarkedRequests(t *testing.T) {
	var l Log
	r := envoytest.New(t, &Server{Log: &l})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	defer backend.Close()
	endpoint := netip.MustParseAddrPort(backend.Listener.Addr().String())
	r.Set(t, envoytest.Config(t, "shop.test", endpoint))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "shop.test"}}}
	ask := func(scheme, host, mark string) {
		t.Helper()
		addr := r.Settings.HTTP
		if scheme == "https" {
			addr = r.Settings.HTTPS
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+addr.String()+"/cart?token=hidden", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if mark != "" {
			req.Header.Set("X-Hythe-Trace", mark)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	ask("http", "shop.test", "")
	ask("http", "shop.test", "NOT HEX")
	ask("https", "shop.test", "cafe0001")
	ask("http", "nobody.test", "cafe0002")
	var first, second []inspect.LiveAnswer
	for deadline := time.Now().Add(20 * time.Second); len(first) == 0 || len(second) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Envoy tells nothing within 20 s: %+v, %+v", first, second)
		}
		first, second = l.Get("cafe0001"), l.Get("cafe0002")
	}
	got := first[0]
	if got.Upstream != endpoint.String() || got.Status != http.StatusOK || got.Path != "/cart" || got.Cluster != "shop/web:http" ||
		got.Route != "shop/shop" || got.Chain != "default" || got.ServerName != "shop.test" || got.Listener != r.Settings.HTTPS.String() {
		t.Errorf("of the request Envoy told %+v", got)
	}
	if got.UpstreamConnected <= 0 || got.FirstByte < got.UpstreamConnected || got.Done < got.FirstByte || time.Since(got.Received) > time.Minute {
		t.Errorf("its times are %s, %s, %s after %s", got.UpstreamConnected, got.FirstByte, got.Done, got.Received)
	}
	if second[0].Status != http.StatusNotFound || second[0].Upstream != "" || second[0].UpstreamConnected != -1 {
		t.Errorf("of the other request Envoy told %+v", second[0])
	}
	if len(l.entries) != 2 {
		t.Errorf("%d requests were told of, 2 were marked", len(l.entries))
	}
}
