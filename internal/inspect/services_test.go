package inspect

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

func endpoints(texts ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range texts {
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}

// Each way in which the kernel can differ from what Build wants is told, and nothing else is.
func TestServicesTellDifferences(t *testing.T) {
	key := model.Key{Namespace: "shop", Name: "web"}
	svc := &corev1.Service{Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"},
		Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}},
	}}
	s := &model.Snapshot{
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: svc}),
		Claims: map[string]*v1alpha1.AddressClaim{"192.0.2.100": {Spec: v1alpha1.AddressClaimSpec{
			Address: "192.0.2.100", Services: []v1alpha1.ServiceRef{{Namespace: "shop", Name: "web"}},
		}}},
	}
	at := func(a string, port uint16) proxy.Frontend {
		return proxy.Frontend{Addr: netip.MustParseAddr(a), Protocol: proxy.TCP, Port: port}
	}
	cluster, node, vip := at("10.96.0.1", 80), at("0.0.0.0", 30080), at("192.0.2.100", 80)
	two, one := endpoints("10.244.1.1:8080", "10.244.2.1:8080"), endpoints("10.244.1.1:8080")
	type table map[proxy.Frontend]proxy.Backends
	same := func(list []netip.AddrPort) proxy.Backends { return proxy.Backends{Inside: list, Outside: list} }
	// Without endpoints no rule says how long a client stays.
	want := table{cluster: same(two), node: {Affinity: time.Hour}, vip: {Inside: two, Outside: one}}
	for name, c := range map[string]struct {
		read                table
		cluster, node, vip  string
		clusterRead, vipOut int
	}{
		"the same": {table{cluster: want[cluster], node: same(nil), vip: want[vip]}, "", "", "", 2, 1},
		"no table": {nil, "the table inet hythe is not there", "the table inet hythe is not there", "the table inet hythe is not there", 0, 0},
		"empty":    {table{}, "the kernel has no such frontend", "the kernel has no such frontend", "the kernel has no such frontend", 0, 0},
		"an endpoint is missing": {
			table{cluster: same(one), node: same(nil), vip: want[vip]}, "10.244.2.1:8080 is missing", "", "", 1, 1,
		},
		"an endpoint is too many": {
			table{cluster: same(two), node: same(one), vip: want[vip]}, "", "10.244.1.1:8080 should be gone", "", 2, 1,
		},
		"for outside alone": {
			table{cluster: same(two), node: same(nil), vip: {Inside: two, Outside: two}}, "", "", "10.244.2.1:8080 should be gone for outside", 2, 2,
		},
		"open to all sources": {
			table{cluster: same(two), node: same(nil), vip: {Inside: two, Outside: one, Sources: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}},
			"", "", "source ranges or session affinity are other ones", 2, 1,
		},
		"other ones": {
			table{cluster: same(endpoints("10.244.9.1:1", "10.244.9.2:1")), node: same(nil), vip: want[vip]},
			"10.244.1.1:8080 and 1 more: is missing, 10.244.9.1:1 and 1 more: should be gone", "", "", 2, 1,
		},
	} {
		got := Services(s, want, c.read)
		if len(got) != 1 || len(got[0].Frontends) != 3 {
			t.Fatalf("%s: %+v", name, got)
		}
		f := got[0].Frontends // 0.0.0.0, 10.96.0.1, 192.0.2.100
		if f[0].Differs != c.node || f[1].Differs != c.cluster || f[2].Differs != c.vip {
			t.Errorf("%s: got node port %q, cluster %q, VIP %q", name, f[0].Differs, f[1].Differs, f[2].Differs)
		}
		if f[1].Wanted != 2 || f[1].Read != c.clusterRead || f[2].OutsideRead != c.vipOut {
			t.Errorf("%s: counts %+v", name, f)
		}
	}
}
