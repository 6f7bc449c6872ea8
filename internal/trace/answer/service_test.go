package answer

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/trace/asked"
)

func serviceSnapshot() *model.Snapshot {
	web, dns := model.Key{Namespace: "shop", Name: "web"}, model.Key{Namespace: "shop", Name: "dns"}
	service := func(k model.Key, ip string, port corev1.ServicePort) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{port}},
		}
	}
	return &model.Snapshot{
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{
			web: service(web, "10.96.0.10", corev1.ServicePort{Name: "http", Port: 80, NodePort: 30080}),
			dns: service(dns, "10.96.0.11", corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}),
		}),
		Endpoints: model.ObjectsOf(map[model.Key]*model.ServiceEndpoints{web: {Ports: []model.PortEndpoints{{
			Name: "http", Protocol: corev1.ProtocolTCP,
			Endpoints: []model.Endpoint{
				{AddrPort: netip.MustParseAddrPort("10.244.1.2:8080"), Node: "a", Pod: "web-1", Ready: true, Serving: true},
				{AddrPort: netip.MustParseAddrPort("10.244.2.2:8080"), Node: "b", Pod: "web-2"},
			},
		}}}}),
		Claims: map[string]*v1alpha1.AddressClaim{"203.0.113.10": {
			ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.10"},
			Spec: v1alpha1.AddressClaimSpec{Address: "203.0.113.10", Pool: "edge", Services: []v1alpha1.ServiceRef{
				{Namespace: "shop", Name: "web"}, {Namespace: "shop", Name: "dns"},
			}},
		}},
		Nodes: map[string]*model.Node{"a": {Name: "a", Addresses: []netip.Addr{nodeIP}}},
	}
}

func TestFindService(t *testing.T) {
	s := serviceSnapshot()
	for _, c := range []struct {
		addr     string
		port     uint16
		protocol corev1.Protocol
		want     string
	}{
		{"203.0.113.10", 80, corev1.ProtocolTCP, "web"},
		{"203.0.113.10", 53, corev1.ProtocolUDP, "dns"}, // two Services share the VIP
		{"203.0.113.10", 99, corev1.ProtocolTCP, "dns"}, // neither has the port
		{"10.96.0.10", 0, corev1.ProtocolTCP, "web"},
		{"203.0.113.101", 30080, corev1.ProtocolTCP, "web"},
		{"203.0.113.101", 80, corev1.ProtocolTCP, ""},
		{"203.0.113.11", 80, corev1.ProtocolTCP, ""},
	} {
		got := FindService(s, ServiceQuery{Addr: netip.MustParseAddr(c.addr), Port: c.port, Protocol: c.protocol})
		if got.Object.Name != c.want || len(got.Nodes) != 1 {
			t.Errorf("%s %s %d is %q", c.addr, c.protocol, c.port, got.Object.Name)
		}
	}
	got := FindService(s, ServiceQuery{Service: model.Key{Namespace: "shop", Name: "web"}, From: "shop/web-2"})
	if len(got.VIPs) != 1 || len(got.Ports) != 1 || countUsable(got.Ports[0].Endpoints) != 1 || got.From.Node != "b" {
		t.Errorf("shop/web is %+v", got)
	}
}

func countUsable(endpoints []asked.EndpointAnswer) (n int) {
	for _, e := range endpoints {
		if e.Usable {
			n++
		}
	}
	return n
}
