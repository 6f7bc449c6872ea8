package kube

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	discoveryv1 "k8s.io/api/discovery/v1"
)

func serviceCIDR() map[string]any {
	return map[string]any{"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
		"metadata": map[string]any{"name": "kubernetes"}, "spec": map[string]any{"cidrs": []string{"10.96.0.0/16"}}}
}

// TestCacheOfOtherVersion starts without an API server from the cache of a version that knew other kinds: fewer of those that a
// cluster need not have, or more.
func TestCacheOfOtherVersion(t *testing.T) {
	for _, c := range []struct {
		wrote, reads []string
		services     int // -1: no Snapshot
	}{
		{[]string{"Node", "Service"}, []string{"Node", "Service", "ServiceCIDR"}, 3},
		{[]string{"Node", "Service", "ServiceCIDR"}, []string{"Node", "Service"}, 3},
		{[]string{"Node", "Service"}, []string{"Node", "Service", "GatewayConfig", "ConfigMap"}, 3},
		{[]string{"Node", "ServiceCIDR"}, []string{"Node", "Service", "ServiceCIDR"}, -1},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeServer()
			f.set("services", services(3)...)
			f.set("servicecidrs", serviceCIDR())
			dir := t.TempDir()
			w := watchFake(t, f, APIOptions{Kinds: c.wrote, CacheDir: dir})
			w.last(10 * time.Second)
			w.stop()
			f.leave(true)
			w = watchFake(t, f, APIOptions{Kinds: c.reads, CacheDir: dir})
			defer w.stop()
			switch s := w.last(10 * time.Second); {
			case c.services < 0 && s != nil:
				t.Errorf("%v from %v: a Snapshot that lacks Services", c.reads, c.wrote)
			case c.services < 0:
			case s == nil:
				t.Errorf("%v from %v: no Snapshot", c.reads, c.wrote)
			case s.Services.Len() != c.services || len(s.ServiceCIDRs) != 0 || reasons(s) != "SnapshotFromCache":
				t.Errorf("%v from %v: %+v", c.reads, c.wrote, s)
			}
		})
	}
}

// TestOptionalKindRefusedAtStart starts when the API server does not give ServiceCIDRs for a moment: those of before stay, until
// it says what there is.
func TestOptionalKindRefusedAtStart(t *testing.T) {
	clientErrors(t)
	for _, refuse := range []func(*fakeServer, string){
		func(f *fakeServer, r string) { f.unserved = r },
		func(f *fakeServer, r string) { f.forbidden = r },
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeServer()
			f.set("services", services(3)...)
			f.set("servicecidrs", serviceCIDR())
			options := APIOptions{Kinds: []string{"Service", "ServiceCIDR"}, CacheDir: t.TempDir()}
			w := watchFake(t, f, options)
			w.last(10 * time.Second)
			w.stop()
			f.mu.Lock()
			refuse(f, "servicecidrs")
			f.mu.Unlock()
			w = watchFake(t, f, options)
			defer w.stop()
			w.last(10 * time.Second)
			for i, s := range w.all {
				if len(s.ServiceCIDRs) != 1 || s.Services.Len() != 3 {
					t.Errorf("Snapshot %d has %d ServiceCIDRs and %d Services", i, len(s.ServiceCIDRs), s.Services.Len())
				}
			}
			f.mu.Lock()
			f.unserved, f.forbidden = "", ""
			f.mu.Unlock()
			f.set("servicecidrs")
			if s := w.last(10 * time.Minute); len(s.ServiceCIDRs) != 0 || len(s.Problems) != 0 {
				t.Errorf("ServiceCIDRs %v, problems %v when there are none", s.ServiceCIDRs, s.Problems)
			}
		})
	}
}

// TestNamesOnce reads EndpointSlices that name the same node: its name is kept once, however long is between them.
func TestNamesOnce(t *testing.T) {
	read := func() *endpointSlice {
		node, name := strings.Clone("a-node-of-which-there-are-many-endpoints"), strings.Clone("a-port-of-the-same-name")
		port := int32(80)
		return compactSlice(&discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
			Ports:     []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, NodeName: &node}}})
	}
	first := read()
	for range 3 {
		runtime.GC() // a name that nobody holds is forgotten
	}
	second := read()
	same := func(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }
	if !same(first.endpoints[0].Node, second.endpoints[0].Node) || !same(first.ports[0].name, second.ports[0].name) {
		t.Error("a name is kept twice")
	}
	runtime.KeepAlive(first)
}

// TestCacheHeader is what a cache file begins with, which other versions read.
func TestCacheHeader(t *testing.T) {
	options := APIOptions{Kinds: []string{"Service", "Node"}, CacheDir: t.TempDir()}
	c, err := newDiskCache(options, "https://a")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.store(nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	const want = `{"format":1,"server":"https://a","kinds":["Node","Service"],"objects":0}` + "\n"
	if got, err := os.ReadFile(filepath.Join(options.CacheDir, "snapshot.jsonl")); err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}
