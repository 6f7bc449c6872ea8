package xds

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/contain/broken"
	"hythe.dev/hythe/internal/model"
)

// FuzzBuilder changes a Config again and again: what a Builder makes is what Build makes, problems included.
func FuzzBuilder(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		w := &randomWorld{Rand: rand.New(rand.NewPCG(seed, 1)), config: gateway.Config{
			Certificates: []gateway.Certificate{{Name: gateway.DefaultCertificateName, Chain: []byte("x"), Key: []byte("y")}}}}
		w.settings.OwnChains = 1 + w.IntN(5)
		w.settings.HSTS = "max-age=1"
		var builder Builder
		for step := range 25 {
			var done []string
			for range 1 + w.IntN(3) {
				done = append(done, w.change())
			}
			w.order()
			got, problems := builder.Build(w.config, w.settings)
			want, wantProblems := Build(w.config, w.settings)
			if diff := resourcesDiffer(&got, &want); diff != "" {
				t.Fatalf("seed %d, step %d, after %q: %s", seed, step, done, diff)
			}
			if !reflect.DeepEqual(problems, wantProblems) {
				t.Fatalf("seed %d, step %d, after %q: problems %v, want %v", seed, step, done, problems, wantProblems)
			}
		}
	})
}

// resourcesDiffer says where two Resources differ, empty if they do not.
func resourcesDiffer(got, want *Resources) string {
	for _, kind := range Kinds() {
		if g, w := got.Names(kind), want.Names(kind); !slices.Equal(g, w) {
			return fmt.Sprintf("%s: %q, want %q", kind, g, w)
		}
		for _, name := range want.Names(kind) {
			g, w := got.Get(kind, name), want.Get(kind, name)
			if !sameResource(g, w) || g.Kind != w.Kind || g.Name != w.Name || !bytes.Equal(g.Body.Value, w.Body.Value) {
				return fmt.Sprintf("%s %s is not as Build makes it:\n%v\nwant\n%v", kind, name, g, w)
			}
		}
	}
	if !maps.Equal(got.onDemand, want.onDemand) {
		return fmt.Sprintf("on demand: %v, want %v", got.onDemand, want.onDemand)
	}
	return ""
}

// A randomWorld is a Config that changes, with a few names, so that things meet.
type randomWorld struct {
	*rand.Rand
	config   gateway.Config
	settings Settings
}

var (
	randomNames    = []string{"*", "*.a.test", "*.test", "a.test", "b.a.test", "b.test", "c.a.test", "d.c.a.test", "e.test"}
	randomBackends = []string{"", "shop/a:http", "shop/b:http", "shop/b:http;h2", "shop/c:http"}
	randomSecrets  = []string{gateway.DefaultCertificateName, "shop/a", "shop/b", "shop/c", "shop/d", "shop:e"}
)

func pick[T any](w *randomWorld, list []T) T { return list[w.IntN(len(list))] }

// some are random ones of a list, in its order.
func some[T any](w *randomWorld, list []T) []T {
	var out []T
	for _, v := range list {
		if w.IntN(3) == 0 {
			out = append(out, v)
		}
	}
	return out
}

// replace puts an element in the place of the one of the same name in a copy of a list, or takes that one away.
func replace[T any](w *randomWorld, list []T, name func(*T) string, v T) []T {
	list = slices.DeleteFunc(slices.Clone(list), func(old T) bool { return name(&old) == name(&v) })
	if w.IntN(4) > 0 {
		list = append(list, v)
	}
	return list
}

// change makes one random change and says which.
func (w *randomWorld) change() string {
	c := &w.config
	switch w.IntN(13) {
	case 0, 1, 2:
		h := w.host()
		c.Hosts = replace(w, c.Hosts, hostName, h)
		return "host " + h.Name
	case 3, 4:
		cert := gateway.Certificate{Name: pick(w, randomSecrets), ServerNames: some(w, randomNames[pick(w, []int{1, 3}):]), Chain: []byte{'a' + byte(w.IntN(2))}, Key: []byte("k")}
		if w.IntN(20) == 0 {
			cert.Key = broken.Slice[byte]()
		}
		c.Certificates = replace(w, c.Certificates, certificateName, cert)
		return "certificate " + cert.Name
	case 5, 6:
		set := gateway.EndpointSet{Name: pick(w, randomBackends), Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(w.IntN(3))}), 80)}}
		c.EndpointSets = replace(w, c.EndpointSets, setName, set)
		return "endpoints " + set.Name
	case 7, 8:
		b := gateway.Backend{Name: pick(w, randomBackends), Endpoints: pick(w, randomBackends)}
		b.Protocol = pick(w, []policy.Protocol{policy.HTTP, policy.H2C})
		b.Pods.EjectAfter = uint32(w.IntN(2))
		c.Backends = replace(w, c.Backends, backendName, b)
		return "backend " + b.Name
	case 9:
		c.Passthroughs = nil
		for _, name := range some(w, randomNames[3:5]) {
			c.Passthroughs = append(c.Passthroughs, gateway.Passthrough{ServerName: name, Backend: pick(w, randomBackends), Origin: w.ingress()})
		}
		return "passthroughs"
	case 10:
		return w.clients()
	case 11:
		c.Observe.LogPerMille = uint32(w.IntN(2))
		c.Listen.HTTP3 = pick(w, []uint16{0, 443})
		return "settings of all"
	}
	c.Streams = nil
	if w.IntN(2) == 0 {
		c.Streams = append(c.Streams, gateway.Stream{Protocol: corev1.ProtocolTCP, Port: uint16(w.IntN(2) + 5000), Backend: pick(w, randomBackends)})
	}
	return "streams"
}

func (w *randomWorld) host() gateway.Host {
	h := gateway.Host{Name: pick(w, randomNames), Certificate: pick(w, randomSecrets), RedirectHTTPS: w.IntN(2) == 0}
	for _, path := range some(w, []string{"/x", "/y", "/", "no path"}) {
		h.Routes = append(h.Routes, gateway.Route{Match: gateway.Prefix, Path: path, Backend: pick(w, randomBackends), Origin: w.ingress()})
	}
	if w.IntN(20) == 0 {
		h.Routes = broken.Slice[gateway.Route]()
	}
	for range w.IntN(3) {
		h.Ingresses = append(h.Ingresses, w.ingress())
	}
	if w.IntN(8) == 0 {
		h.Clients = &policy.ClientAuth{Subject: "CN=a"}
	}
	return h
}

func (w *randomWorld) clients() string {
	w.config.Authorities, w.config.ClientTLS = nil, nil
	if w.IntN(2) == 0 {
		w.config.Authorities = append(w.config.Authorities, gateway.Authorities{Name: "shop/ca", Certificates: []byte{'c' + byte(w.IntN(2))}})
		w.config.ClientTLS = append(w.config.ClientTLS, gateway.ClientTLS{
			Certificate: pick(w, randomSecrets), Authorities: "shop/ca", ServerNames: some(w, randomNames[1:])})
	}
	if w.config.Trusts = nil; w.IntN(2) == 0 {
		w.config.Trusts = []gateway.Trust{{Name: "shop/t", Authorities: []byte("t"), Chain: []byte("x"), Key: []byte("y")}}
	}
	return "clients and trusts"
}

func (w *randomWorld) ingress() model.Key {
	return model.Key{Namespace: "shop", Name: string(rune('a' + w.IntN(4)))}
}

// order sorts the lists as gateway.Build does, in copies; not always, since Build takes any.
func (w *randomWorld) order() {
	c := &w.config
	c.Hosts, c.Certificates = slices.Clone(c.Hosts), slices.Clone(c.Certificates)
	c.Backends, c.EndpointSets = slices.Clone(c.Backends), slices.Clone(c.EndpointSets)
	if w.IntN(10) == 0 {
		return
	}
	slices.SortFunc(c.Hosts, byName(hostName))
	slices.SortFunc(c.Certificates, byName(certificateName))
	slices.SortFunc(c.Backends, byName(backendName))
	slices.SortFunc(c.EndpointSets, byName(setName))
}

func byName[T any](name func(*T) string) func(a, b T) int {
	return func(a, b T) int {
		switch x, y := name(&a), name(&b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
}

// TestBuilderSeesAllFields counts fields: who adds one says in memory.go what is made of it, and then changes the number here.
func TestBuilderSeesAllFields(t *testing.T) {
	for v, want := range map[any]int{
		reflect.TypeFor[gateway.Host](): 6, reflect.TypeFor[gateway.Certificate](): 7, reflect.TypeFor[gateway.EndpointSet](): 2,
		reflect.TypeFor[Resource](): 9, reflect.TypeFor[gateway.Config](): 13,
	} {
		if got := v.(reflect.Type).NumField(); got != want {
			t.Errorf("%v has %d fields, and Builder compares %d", v, got, want)
		}
	}
}
