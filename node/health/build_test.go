package health

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/contain/broken"
	"hythe.dev/hythe/internal/model"
)

// healthy makes a snapshot with one Service that is asked about at port 32000, with these endpoints of ports http and metrics.
func healthy(eps ...model.Endpoint) (*model.Snapshot, *corev1.Service) {
	key := model.Key{Namespace: "shop", Name: "web"}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1", ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 32000,
		Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "metrics", Port: 90}},
	}}
	other := make([]model.Endpoint, len(eps))
	for i, e := range eps {
		other[i] = e
		other[i].AddrPort = netip.AddrPortFrom(e.AddrPort.Addr(), 9090)
	}
	return &model.Snapshot{
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: svc}),
		Nodes:    map[string]*model.Node{"n1": {Name: "n1"}},
		Endpoints: model.ObjectsOf(map[model.Key]*model.ServiceEndpoints{key: {Ports: []model.PortEndpoints{
			{Name: "http", Protocol: corev1.ProtocolTCP, Endpoints: eps}, {Name: "metrics", Protocol: corev1.ProtocolTCP, Endpoints: other}}}}),
	}, svc
}

func end(addr, node string, ready bool) model.Endpoint {
	return model.Endpoint{AddrPort: netip.MustParseAddrPort(addr), Node: node, Ready: ready, Serving: true, Terminating: !ready}
}

func TestBuild(t *testing.T) {
	const one, none = "32000 Service shop/web: 1 IPv4, 0 IPv6 endpoints here\n", "32000 Service shop/web: 0 IPv4, 0 IPv6 endpoints here\n"
	here, there := end("10.244.1.2:8080", "n1", true), end("10.244.2.2:8080", "n2", true)
	for name, c := range map[string]struct {
		eps    []model.Endpoint
		change func(*model.Snapshot, *corev1.Service)
		want   string
	}{
		"one here, one elsewhere": {[]model.Endpoint{here, there}, nil, one},
		"elsewhere":               {[]model.Endpoint{there}, nil, none},
		"terminating":             {[]model.Endpoint{here, end("10.244.1.3:8080", "n1", false)}, nil, one},
		"only terminating":        {[]model.Endpoint{end("10.244.1.3:8080", "n1", false)}, nil, none},
		"both families": {[]model.Endpoint{here, end("[fd00::2]:8080", "n1", true), end("[fd00::3]:8080", "n1", true)}, nil,
			"32000 Service shop/web: 1 IPv4, 2 IPv6 endpoints here\n"},
		"refused endpoint": {[]model.Endpoint{here, end("127.0.0.1:8080", "n1", true)}, nil, one},
		"policy Cluster": {[]model.Endpoint{here}, func(_ *model.Snapshot, svc *corev1.Service) {
			svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
		}, ""},
		"no LoadBalancer": {[]model.Endpoint{here}, func(_ *model.Snapshot, svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort }, ""},
		"of another proxy": {[]model.Endpoint{here}, func(_ *model.Snapshot, svc *corev1.Service) {
			svc.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
		}, ""},
		"without port": {[]model.Endpoint{here}, func(_ *model.Snapshot, svc *corev1.Service) { svc.Spec.HealthCheckNodePort = 0 }, ""},
		"node leaves":  {[]model.Endpoint{here}, func(s *model.Snapshot, _ *corev1.Service) { s.Nodes["n1"].Leaving = true }, one + "this node is about to go\n"},
		"no node":      {[]model.Endpoint{here}, func(s *model.Snapshot, _ *corev1.Service) { s.Nodes = nil }, one + "this node is about to go\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s, svc := healthy(c.eps...)
			if c.change != nil {
				c.change(s, svc)
			}
			want := c.want
			if got, problems := Build(s, "n1", model.Own{}, nil); got.String() != want || len(problems) > 0 {
				t.Errorf("%s%v, want\n%s", got, problems, want)
			}
		})
	}
}

// TestBadServices: of two Services with one port the older one has it, and one at which Build panics costs itself alone.
func TestBadServices(t *testing.T) {
	s, svc := healthy(end("10.244.1.2:8080", "n1", true))
	add := func(name string, port int32, age time.Duration) *corev1.Service {
		other := svc.DeepCopy()
		other.Name, other.Spec.HealthCheckNodePort = name, port
		other.CreationTimestamp = metav1.NewTime(time.Unix(1e9, 0).Add(-age))
		s.Services = s.Services.With(model.Key{Namespace: "shop", Name: name}, other)
		return other
	}
	add("older", 32000, time.Hour)
	add("far", 70000, 0)
	add("broken", 32001, 0).Spec.Ports = broken.Slice[corev1.ServicePort]()
	add("broken-policy", 32002, 0).Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicy(broken.Text()) // proxy.Build tells of it
	got, problems := Build(s, "n1", model.Own{}, nil)
	if len(got.Services) != 1 || got.Services[32000].Name != "older" {
		t.Errorf("%+v", got.Services)
	}
	var reasons []string
	for _, p := range problems {
		reasons = append(reasons, p.Object.Name+" "+p.Reason)
	}
	if strings.Join(reasons, ",") != "broken InternalError,far InvalidHealthCheckNodePort,web HealthCheckNodePortConflict" {
		t.Error(problems)
	}
}

// TestBuilder goes on from what it knows, and sees each change of what it is about.
func TestBuilder(t *testing.T) {
	var history model.History
	var b Builder
	first, svc := healthy(end("10.244.1.2:8080", "n1", true))
	key, other := model.Key{Namespace: "shop", Name: "web"}, model.Key{Namespace: "shop", Name: "other"}
	check := func(what string, s *model.Snapshot, addresses []netip.Prefix, want string) {
		t.Helper()
		got, _ := b.Build(s, "n1", nil, addresses)
		whole, _ := Build(s, "n1", model.Own{}, addresses)
		if got.String() != want || whole.String() != want || !slices.Equal(got.Addresses, addresses) {
			t.Errorf("%s: %s, anew %s, want %s", what, got, whole, want)
		}
	}
	s := history.Note(first, nil, true)
	check("first", s, nil, "32000 Service shop/web: 1 IPv4, 0 IPv6 endpoints here\n")
	s = history.Note(s, []model.Key{other}, false)
	check("endpoints of another", s, nil, "32000 Service shop/web: 1 IPv4, 0 IPv6 endpoints here\n")
	next := *s
	next.Endpoints = model.Objects[*model.ServiceEndpoints]{}
	s = history.Note(&next, []model.Key{other, key}, false)
	check("its endpoints", s, nil, "32000 Service shop/web: 0 IPv4, 0 IPv6 endpoints here\n")
	next = *s
	changed := svc.DeepCopy()
	changed.Spec.HealthCheckNodePort = 32001
	next.Services = model.ObjectsOf(map[model.Key]*corev1.Service{key: changed})
	s = history.Note(&next, nil, true)
	check("its port", s, nil, "32001 Service shop/web: 0 IPv4, 0 IPv6 endpoints here\n")
	check("addresses", s, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, "32001 Service shop/web: 0 IPv4, 0 IPv6 endpoints here\n")
}
