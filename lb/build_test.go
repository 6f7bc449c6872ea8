package lb

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/model"
)

// TestBuild runs each file of testdata/build: objects in, text out. A file with "again.yaml" is built twice: the
// second time with the claims of the first and these objects instead.
func TestBuild(t *testing.T) {
	golden.Archives(t, "testdata/build/*.txtar", func(t *testing.T, archive *golden.Archive) {
		settings := Settings{
			WithoutClass:   bytes.Contains(archive.Comment, []byte("without class")),
			Release:        bytes.Contains(archive.Comment, []byte(`"release"`)),
			Shared:         bytes.Contains(archive.Comment, []byte("shared")),
			GatewayService: model.Key{Namespace: "hythe", Name: "gateway"},
		}
		var claims []*v1alpha1.AddressClaim
		for _, f := range archive.Files {
			if !strings.HasSuffix(f.Name, ".yaml") {
				continue
			}
			s := readSnapshot(t, f.Data)
			for _, c := range claims {
				s.Claims[c.Name] = c
			}
			state, problems := Build(s, settings)
			checkState(t, s, state)
			claims = state.Claims
			archive.Want(t, strings.TrimSuffix(f.Name, ".yaml")+".want", textOf(state, problems))
		}
	})
}

func textOf(state State, problems []model.Problem) string {
	var b strings.Builder
	b.WriteString(state.String())
	for _, p := range problems {
		fmt.Fprintf(&b, "problem %s\n", p)
	}
	return b.String()
}

// checkState holds for every input: no address twice, at most one of a family for a Service, none of a node.
func checkState(t *testing.T, s *model.Snapshot, state State) {
	t.Helper()
	seen := map[string]bool{}
	for _, c := range state.Claims {
		a := netip.MustParseAddr(c.Spec.Address)
		if c.Name != v1alpha1.ClaimName(a) {
			t.Errorf("claim %s has address %s", c.Name, a)
		}
		for _, ref := range c.Spec.Services {
			id := fmt.Sprintf("%v %t", ref, a.Is6())
			if seen[id] {
				t.Errorf("Service %s has two addresses of a family", id)
			}
			seen[id] = true
		}
		if seen[c.Name] {
			t.Errorf("claim %s twice", c.Name)
		}
		seen[c.Name] = true
	}
	promised := map[string]bool{}
	for _, svc := range state.Services {
		for _, i := range svc.Ingress {
			promised[i.IP] = true
		}
	}
	for _, n := range s.Nodes {
		for _, a := range n.Addresses {
			if promised[a.String()] || seen[v1alpha1.ClaimName(a)] && s.Claims[v1alpha1.ClaimName(a)] == nil {
				t.Errorf("a node's address is given out: %s", a)
			}
		}
	}
}

func readSnapshot(t *testing.T, data []byte) *model.Snapshot {
	t.Helper()
	s := &model.Snapshot{
		Nodes: map[string]*model.Node{},
		Pools: map[string]*v1alpha1.AddressPool{}, Claims: map[string]*v1alpha1.AddressClaim{}, Reports: map[string]*v1alpha1.Report{},
	}
	decode := func(doc []byte, into any) {
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
	}
	for _, doc := range bytes.Split(data, []byte("---\n")) {
		var meta metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(doc, &meta); err != nil {
			t.Fatal(err)
		}
		key := model.Key{Namespace: meta.Namespace, Name: meta.Name}
		switch meta.Kind {
		case "Service":
			s.Services = s.Services.With(key, &corev1.Service{})
			decode(doc, s.Services.Get(key))
		case "Ingress":
			s.Ingresses = s.Ingresses.With(key, &networkingv1.Ingress{})
			decode(doc, s.Ingresses.Get(key))
		case "AddressPool":
			s.Pools[meta.Name] = &v1alpha1.AddressPool{}
			decode(doc, s.Pools[meta.Name])
		case "AddressClaim":
			s.Claims[meta.Name] = &v1alpha1.AddressClaim{}
			decode(doc, s.Claims[meta.Name])
		case "Report":
			s.Reports[meta.Name] = &v1alpha1.Report{}
			decode(doc, s.Reports[meta.Name])
		case "Node":
			var n corev1.Node
			decode(doc, &n)
			node := &model.Node{Name: n.Name}
			for _, a := range n.Status.Addresses {
				node.Addresses = append(node.Addresses, netip.MustParseAddr(a.Address))
			}
			for _, p := range n.Spec.PodCIDRs {
				node.PodCIDRs = append(node.PodCIDRs, netip.MustParsePrefix(p))
			}
			s.Nodes[n.Name] = node
		case "":
		default:
			t.Fatalf("unknown kind %q", meta.Kind)
		}
	}
	return s
}

func testService(i int) (model.Key, *corev1.Service) {
	key := model.Key{Namespace: "default", Name: fmt.Sprintf("s%05d", i)}
	class := v1alpha1.LoadBalancerClass
	return key, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: &class},
	}
}

func testPool(name string, addresses ...string) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AddressPoolSpec{Addresses: addresses}}
}

// TestBuildChurn makes and deletes Services at random: nobody's address changes, and two builds agree.
func TestBuildChurn(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	claims := map[string]*v1alpha1.AddressClaim{}
	services := map[model.Key]*corev1.Service{}
	for round := range 300 {
		for range 3 {
			key, svc := testService(rng.IntN(40))
			if services[key] == nil {
				services[key] = svc
			} else {
				delete(services, key)
			}
		}
		s := &model.Snapshot{Services: model.ObjectsOf(services), Claims: claims, Pools: map[string]*v1alpha1.AddressPool{
			"a": testPool("a", "203.0.113.0/29", "203.0.113.20-203.0.113.24"), "b": testPool("b", "203.0.113.64/28"),
		}}
		state, problems := Build(s, Settings{})
		again, _ := Build(s, Settings{})
		if state.String() != again.String() {
			t.Fatalf("round %d: two builds differ", round)
		}
		checkState(t, s, state)
		next := map[string]*v1alpha1.AddressClaim{}
		for _, c := range state.Claims {
			next[c.Name] = c
		}
		for name, c := range claims {
			ref := c.Spec.Services[0]
			if services[model.Key{Namespace: ref.Namespace, Name: ref.Name}] != nil && next[name] != c {
				t.Fatalf("round %d: the claim %s of a living Service changed", round, name)
			}
		}
		// 29 addresses: a Service without one says so, and only when there is none left.
		if want := min(len(services), 29); len(next) != want || (len(services) > 29) != (len(problems) > 0) {
			t.Fatalf("round %d: %d Services, %d claims, %d problems", round, len(services), len(next), len(problems))
		}
		claims = next
	}
}

// TestFreedAddressRests sees that a freed address is not the next one given.
func TestFreedAddressRests(t *testing.T) {
	s := &model.Snapshot{Pools: map[string]*v1alpha1.AddressPool{"a": testPool("a", "203.0.113.0/29")}}
	give := func() State {
		state, _ := Build(s, Settings{})
		s.Claims = map[string]*v1alpha1.AddressClaim{}
		for _, c := range state.Claims {
			s.Claims[c.Name] = c
		}
		return state
	}
	for i := range 3 {
		key, svc := testService(i)
		s.Services = s.Services.With(key, svc)
	}
	give()
	gone, _ := testService(1)
	s.Services = s.Services.Without(gone)
	give()
	key, svc := testService(9)
	s.Services = s.Services.With(key, svc)
	if state := give(); s.Claims["203.0.113.3"] == nil || s.Claims["203.0.113.1"] != nil {
		t.Errorf("the new Service was not given the next address:\n%s", state.String())
	}
}

// BenchmarkBuild is one Build after one more Service, with pools from small to as large as they come.
func BenchmarkBuild(b *testing.B) {
	for _, pool := range []string{"10.0.0.0/20", "10.0.0.0/8", "2001:db8::/64"} {
		b.Run(pool, func(b *testing.B) {
			s := &model.Snapshot{Claims: map[string]*v1alpha1.AddressClaim{}, Pools: map[string]*v1alpha1.AddressPool{"p": testPool("p", pool)}}
			for i := range 1000 {
				key, svc := testService(i)
				if strings.Contains(pool, ":") {
					svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
				}
				s.Services = s.Services.With(key, svc)
			}
			state, _ := Build(s, Settings{})
			for _, c := range state.Claims[:len(state.Claims)-1] {
				s.Claims[c.Name] = c
			}
			b.ReportAllocs()
			for b.Loop() {
				Build(s, Settings{})
			}
		})
	}
}

// FuzzParseRange checks that whatever is accepted is a range that can be printed, read and used.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"203.0.113.10-203.0.113.19", "10.0.0.0/8", "2001:db8::/64", "1.2.3.4", "::ffff:1.2.3.4", "1.2.3.4-", "fe80::1%eth0", "0.0.0.0/0", "1.2.3.4/33", "2001:db8::-1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err != nil {
			return
		}
		again, err := ParseRange(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is %s, which reads as %s, %v", s, r, again, err)
		}
		if r.size() < 1 || !r.contains(r.First) || !r.contains(r.Last) || r.First.Is4In6() {
			t.Fatalf("%q: bad range %s", s, r)
		}
		p := pool{ranges: []Range{r}}
		used := map[netip.Addr]model.ObjectRef{}
		p.start(used)
		if a, ok := p.take(r.First.Is6(), used); !ok || a != r.First {
			t.Fatalf("%q: the first address is %s", s, a)
		}
	})
}

// FuzzPools gives Services addresses of pools with any entries, beside claims of any text, and takes some away again:
// each address is of a pool's entry, nobody's else, and nobody's twice, and what is kept does not change.
func FuzzPools(f *testing.F) {
	f.Add("203.0.113.10-203.0.113.12\n2001:db8::/126;203.0.113.11-203.0.113.14", "203.0.113.11", uint8(9))
	f.Add("0.0.0.0/0;::/0;2000::/3;1.0.0.0/8", "10.244.0.1", uint8(3))
	f.Add("255.255.255.255;223.255.255.255;223.255.255.250-223.255.255.255", "::ffff:203.0.113.1", uint8(5))
	f.Add("fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffe-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff;fd00::/8", "fd00::1", uint8(7))
	f.Add("10.244.0.0/15\n10.96.0.0/12\n192.0.2.0/24", "192.0.2.11", uint8(200))
	f.Fuzz(func(t *testing.T, pools, claimed string, services uint8) {
		s := &model.Snapshot{
			Services: model.ObjectsOf(map[model.Key]*corev1.Service{{Name: "dns"}: {Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10"}}}),
			Pools:    map[string]*v1alpha1.AddressPool{},
			Nodes:    map[string]*model.Node{"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}},
			Claims:   map[string]*v1alpha1.AddressClaim{},
		}
		for i, text := range strings.Split(pools, ";") {
			name := fmt.Sprintf("p%d", i)
			s.Pools[name] = testPool(name, strings.Split(text, "\n")...)
		}
		for i := range int(services) {
			key, svc := testService(i)
			if i%3 == 0 {
				both := corev1.IPFamilyPolicyPreferDualStack
				svc.Spec.IPFamilyPolicy = &both
			}
			s.Services = s.Services.With(key, svc)
		}
		s.Claims[claimed] = &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: claimed}, Spec: v1alpha1.AddressClaimSpec{
			Address: claimed, Pool: "p0", Announce: []string{AnnounceARP}, Services: []v1alpha1.ServiceRef{{Namespace: "default", Name: "s00001"}},
		}}
		for range 3 {
			state, _ := Build(s, Settings{})
			checkState(t, s, state)
			for _, c := range state.Claims {
				if s.Claims[c.Name] == nil {
					checkFresh(t, s, c)
				}
			}
			s.Claims = map[string]*v1alpha1.AddressClaim{}
			for _, c := range state.Claims {
				s.Claims[c.Name] = c
			}
			again, _ := Build(s, Settings{})
			if again.String() != state.String() && s.Claims[claimed] == nil {
				t.Fatalf("not settled:\n%s\nthen\n%s", state, again)
			}
			for i := range int(services) {
				key, svc := testService(i)
				if _, ok := s.Services.Find(key); ok && i%2 == 0 {
					s.Services = s.Services.Without(key)
				} else if !ok {
					s.Services = s.Services.With(key, svc)
				}
			}
		}
	})
}

// checkFresh says that a new claim is of an entry of its pool, and of nobody else.
func checkFresh(t *testing.T, s *model.Snapshot, c *v1alpha1.AddressClaim) {
	a := netip.MustParseAddr(c.Spec.Address)
	listed := false
	for _, entry := range s.Pools[c.Spec.Pool].Spec.Addresses {
		r, err := ParseRange(entry)
		listed = listed || err == nil && r.contains(a)
	}
	if !listed {
		t.Fatalf("%s is no address of %s", a, c.Spec.Pool)
	}
	if whose := model.ForeignAddresses(s, []netip.Addr{a}); len(whose) > 0 {
		t.Fatalf("%s was given although %s", a, whose[a])
	}
}
