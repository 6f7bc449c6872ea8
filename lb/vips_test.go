package lb

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// TestVIPs checks what a node derives from a claim: who may own it and what is probed.
func TestVIPs(t *testing.T) {
	ready := func(addr, node string) model.Endpoint {
		return model.Endpoint{AddrPort: netip.MustParseAddrPort(addr), Node: node, Ready: true, Serving: true}
	}
	leaving := func(addr, node string) model.Endpoint {
		return model.Endpoint{AddrPort: netip.MustParseAddrPort(addr), Node: node, Serving: true, Terminating: true}
	}
	tcp := func(name string, endpoints ...model.Endpoint) model.PortEndpoints {
		return model.PortEndpoints{Name: name, Protocol: corev1.ProtocolTCP, Endpoints: endpoints}
	}
	udp := tcp("dns", ready("10.0.0.1:53", "n1"))
	udp.Protocol = corev1.ProtocolUDP
	local := corev1.ServiceExternalTrafficPolicyLocal
	for name, c := range map[string]struct {
		policy  corev1.ServiceExternalTrafficPolicy
		probe   string
		ports   []model.PortEndpoints
		labels  map[string]string
		node    model.Node
		edit    func(*v1alpha1.AddressClaim)
		want    string
		problem bool
	}{
		"cluster":            {policy: corev1.ServiceExternalTrafficPolicyCluster, ports: []model.PortEndpoints{tcp("http", ready("10.0.0.1:80", "n1"))}, want: "203.0.113.1 local=false draining=false"},
		"local":              {policy: local, ports: []model.PortEndpoints{tcp("http", ready("10.0.0.1:80", "n1"), ready("10.0.0.2:80", "n2")), tcp("https", ready("10.0.0.1:443", "n1"))}, want: "203.0.113.1 local=true draining=false 10.0.0.1[10.0.0.1:80 10.0.0.1:443]"},
		"elsewhere":          {policy: local, ports: []model.PortEndpoints{tcp("http", ready("10.0.0.2:80", "n2"))}, want: "203.0.113.1 local=true draining=false"},
		"http":               {policy: local, probe: "http:8081/ready?x=1", ports: []model.PortEndpoints{tcp("http", ready("10.0.0.1:80", "n1")), tcp("https", ready("10.0.0.1:443", "n1"))}, want: "203.0.113.1 local=true draining=false 10.0.0.1[10.0.0.1:8081/ready?x=1]"},
		"bad probe":          {policy: local, probe: "http:99999/ready", ports: []model.PortEndpoints{tcp("http", ready("10.0.0.1:80", "n1"))}, want: "203.0.113.1 local=true draining=false 10.0.0.1[10.0.0.1:80]", problem: true},
		"terminating":        {policy: local, ports: []model.PortEndpoints{tcp("http", leaving("10.0.0.1:80", "n1"))}, want: "203.0.113.1 local=true draining=true 10.0.0.1[10.0.0.1:80]"},
		"one terminating":    {policy: local, ports: []model.PortEndpoints{tcp("http", leaving("10.0.0.1:80", "n1"), ready("10.0.0.3:80", "n1"))}, want: "203.0.113.1 local=true draining=false 10.0.0.3[10.0.0.3:80]"},
		"udp only":           {policy: local, ports: []model.PortEndpoints{udp}, want: "203.0.113.1 local=true draining=false 10.0.0.1[]"},
		"excluded node":      {labels: map[string]string{corev1.LabelNodeExcludeBalancers: ""}, want: "203.0.113.1 local=false draining=true"},
		"node to be deleted": {node: model.Node{Leaving: true}, want: "203.0.113.1 local=false draining=true"},
		"cordoned node":      {node: model.Node{Unschedulable: true}, want: "203.0.113.1 local=false draining=false"},
		"not by arp":         {edit: func(c *v1alpha1.AddressClaim) { c.Spec.Announce = []string{"bgp"} }},
		"no such service":    {edit: func(c *v1alpha1.AddressClaim) { c.Spec.Services[0].Name = "gone" }},
		"false name":         {edit: func(c *v1alpha1.AddressClaim) { c.Spec.Address = "203.0.113.2" }},
		"no address":         {edit: func(c *v1alpha1.AddressClaim) { c.Spec.Address = "" }},
		"tenant externals":   {edit: func(c *v1alpha1.AddressClaim) { c.Spec.Services = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			key := model.Key{Namespace: "default", Name: "web"}
			svc := &corev1.Service{Spec: corev1.ServiceSpec{ExternalTrafficPolicy: c.policy, ExternalIPs: []string{"203.0.113.9"}}}
			if c.probe != "" {
				svc.Annotations = map[string]string{v1alpha1.ProbeAnnotation: c.probe}
			}
			claim := &v1alpha1.AddressClaim{
				ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.1"},
				Spec:       v1alpha1.AddressClaimSpec{Address: "203.0.113.1", Announce: []string{AnnounceARP}, Services: []v1alpha1.ServiceRef{{Namespace: "default", Name: "web"}}},
			}
			if c.edit != nil {
				c.edit(claim)
			}
			c.node.Name, c.node.Labels = "n1", c.labels
			got, problems := VIPs(&model.Snapshot{
				Services:  model.ObjectsOf(map[model.Key]*corev1.Service{key: svc}),
				Endpoints: model.ObjectsOf(map[model.Key]*model.ServiceEndpoints{key: {Ports: c.ports}}),
				Claims:    map[string]*v1alpha1.AddressClaim{claim.Name: claim},
				Nodes:     map[string]*model.Node{"n1": &c.node},
			}, "n1")
			var lines []string
			for _, v := range got {
				line := fmt.Sprintf("%s local=%t draining=%t", v.Addr, v.Local, v.Draining)
				for _, p := range v.Probes {
					var targets []string
					for _, target := range p.Targets {
						targets = append(targets, target.AddrPort.String()+target.Path)
					}
					line += fmt.Sprintf(" %s[%s]", p.Pod, strings.Join(targets, " "))
				}
				lines = append(lines, line)
			}
			if text := strings.Join(lines, "\n"); text != c.want || (len(problems) > 0) != c.problem {
				t.Errorf("got %s, %v\nwant %s", text, problems, c.want)
			}
		})
	}
}

// TestVIPsOfOthers claims addresses that are somebody else's, and has a good claim beside them: that one alone is
// announced.
func TestVIPsOfOthers(t *testing.T) {
	key := model.Key{Namespace: "default", Name: "web"}
	s := &model.Snapshot{
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{
			key: {}, {Namespace: "default", Name: "internal"}: {Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.7"}},
		}),
		Nodes: map[string]*model.Node{
			"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
			"n2": {Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.12")}},
		},
		Claims: map[string]*v1alpha1.AddressClaim{},
	}
	for _, a := range []string{"203.0.113.1", "192.0.2.11", "192.0.2.12", "10.244.1.0", "10.244.1.255", "10.96.0.7", "127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "169.254.1.1"} {
		s.Claims[a] = &v1alpha1.AddressClaim{
			ObjectMeta: metav1.ObjectMeta{Name: a},
			Spec:       v1alpha1.AddressClaimSpec{Address: a, Announce: []string{AnnounceARP}, Services: []v1alpha1.ServiceRef{{Namespace: "default", Name: "web"}}},
		}
	}
	got, problems := VIPs(s, "n1")
	if len(got) != 1 || got[0].Addr.String() != "203.0.113.1" {
		t.Errorf("announced: %v", got)
	}
	if len(problems) != len(s.Claims)-1 {
		t.Errorf("%d problems: %v", len(problems), problems)
	}
	for _, p := range problems {
		if p.Reason != model.ReasonForeignAddress || p.Object.Kind != "AddressClaim" || !strings.Contains(p.Message, "not announced: ") || !strings.Contains(p.Message, "Take it out") {
			t.Errorf("problem %s", p)
		}
	}
}

// TestProbesOfOthers lets the author of an EndpointSlice ask the agent for its own admin pages and for metadata
// services: nothing is asked.
func TestProbesOfOthers(t *testing.T) {
	key := model.Key{Namespace: "default", Name: "web"}
	for _, test := range []struct {
		probe, endpoint string
		asked           bool
	}{
		{"", "10.244.1.5:80", true},
		{"http:9903/x", "10.244.1.5:80", true},
		{"", "192.0.2.11:80", true},
		{"", "127.0.0.1:9903", false},
		{"", "169.254.169.254:80", false},
		{"http:9903/debug/problems", "192.0.2.11:80", false},
		{"", "192.0.2.11:9901", false},
		{"", "203.0.113.1:80", false},
	} {
		svc := &corev1.Service{Spec: corev1.ServiceSpec{ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal}}
		svc.Annotations = map[string]string{v1alpha1.ProbeAnnotation: test.probe}
		endpoints := []model.Endpoint{{AddrPort: netip.MustParseAddrPort(test.endpoint), Node: "n1", Ready: true}}
		vips, problems := VIPs(&model.Snapshot{
			Services:  model.ObjectsOf(map[model.Key]*corev1.Service{key: svc}),
			Endpoints: model.ObjectsOf(map[model.Key]*model.ServiceEndpoints{key: {Ports: []model.PortEndpoints{{Protocol: corev1.ProtocolTCP, Endpoints: endpoints}}}}),
			Nodes:     map[string]*model.Node{"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")}}},
			Claims: map[string]*v1alpha1.AddressClaim{"203.0.113.1": {
				ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.1"},
				Spec:       v1alpha1.AddressClaimSpec{Address: "203.0.113.1", Announce: []string{AnnounceARP}, Services: []v1alpha1.ServiceRef{{Namespace: "default", Name: "web"}}},
			}},
		}, "n1")
		if len(vips) != 1 || (len(vips[0].Probes) > 0) != test.asked || (len(problems) == 0) != test.asked {
			t.Errorf("%s %s: %+v, problems %v", test.probe, test.endpoint, vips, problems)
		}
	}
}
