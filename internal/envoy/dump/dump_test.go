package dump_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/envoy/dump"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/xds"
)

var everything = dump.What{Listeners: dump.AllNames, Hosts: true, Clusters: dump.AllNames, Certificates: dump.AllNames}

// TestReadEnvoy reads back what a real Envoy has, with an endpoint that it avoids.
func TestReadEnvoy(t *testing.T) {
	r := envoytest.New(t, nil)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	defer backend.Close()
	good, bad := netip.MustParseAddrPort(backend.Listener.Addr().String()), testenv.FreeAddress(t)
	config := envoytest.Config(t, "shop.test", good, bad)
	resources, _ := r.Set(t, config)
	read := func(what dump.What) *dump.Config {
		t.Helper()
		c, err := dump.NewReader(r.Admin).Read(t.Context(), what)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := read(everything)
	if c.Server.State != "LIVE" || !strings.HasPrefix(c.Server.Version, "1.") {
		t.Errorf("server %+v", c.Server)
	}
	for _, name := range []string{"http", "https", "ready"} {
		l := c.Listener(name)
		if l == nil || l.Body == nil || l.Version == "" || l.Address.Port() == 0 || time.Since(l.Updated) > time.Minute || l.Error != nil {
			t.Errorf("listener %s: %+v", name, l)
		}
	}
	if len(c.Tables) != 1 || c.Host("all/shop.test") == nil || c.Host("all/_default") == nil {
		t.Errorf("tables %+v", c.Tables)
	}
	if cert := c.Certificate("default"); cert == nil || cert.Warming || len(cert.Chain) != 1 || cert.Chain[0].Subject.CommonName != "default" {
		t.Errorf("certificate %+v", cert)
	}
	if web := c.Cluster("shop/web:http"); web == nil || web.Warming || len(web.Endpoints) != 2 || len(web.Open) != 0 ||
		web.Version != resources.Get(0, "shop/web:http").Version {
		t.Errorf("cluster %+v", web)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		ask(t, r.Settings.HTTP)
		e := endpoint(read(dump.What{Clusters: []string{"shop/web:http"}}).Cluster("shop/web:http"), bad)
		if !e.Healthy && e.Health == "failed_outlier_check" && e.ConnectFailures > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the endpoint that nobody serves is %+v after 20 s", e)
		}
	}
	if e := endpoint(read(everything).Cluster("shop/web:http"), good); !e.Healthy || e.Requests == 0 {
		t.Errorf("the good endpoint is %+v", e)
	}
	c = read(dump.What{Listeners: []string{"http"}, Certificates: []string{"no.such"}})
	if len(c.Listeners) != 1 || len(c.Certificates)+len(c.Clusters)+len(c.Tables) != 0 {
		t.Errorf("more was read than asked for: %+v", c)
	}
}

// TestReadRefused has a listener that Envoy refuses, and nothing of some kinds. A listener that never was Envoy does not
// show: only the answer to the gateway says why.
func TestReadRefused(t *testing.T) {
	r := envoytest.New(t, nil)
	config := envoytest.Config(t, "shop.test")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.Settings.HTTP = netip.MustParseAddrPort(taken.Addr().String())
	if _, status := r.Set(t, config); len(status.Refused) != 1 || !strings.Contains(status.Refused[0].Reason, "in use") {
		t.Errorf("refused are %+v", status.Refused)
	}
	c, err := dump.NewReader(r.Admin).Read(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listener("http") != nil || c.Listener("https") == nil {
		t.Errorf("listeners %+v", c.Listeners)
	}
}

// TestReadRefusedChange has a listener whose newer version Envoy refuses.
func TestReadRefusedChange(t *testing.T) {
	r := envoytest.New(t, nil)
	config := envoytest.Config(t, "shop.test")
	before, _ := r.Set(t, config)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.Settings.HTTP = netip.MustParseAddrPort(taken.Addr().String())
	r.Set(t, config)
	c, err := dump.NewReader(r.Admin).Read(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	l := c.Listener("http")
	if l == nil || l.Version != before.Get(xds.Listener, "http").Version || l.Error == nil || !strings.Contains(l.Error.Reason, "in use") {
		t.Errorf("listener %+v", l)
	}
}

func TestNobodyThere(t *testing.T) {
	if _, err := dump.NewReader(filepath.Join(t.TempDir(), "none.sock")).Read(t.Context(), everything); err == nil {
		t.Error("no error")
	}
}

func endpoint(c *dump.Cluster, addr netip.AddrPort) dump.Endpoint {
	for _, e := range c.Endpoints {
		if e.Address == addr {
			return e
		}
	}
	return dump.Endpoint{}
}

func ask(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.test"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
