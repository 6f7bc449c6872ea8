package check

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/model"
)

func TestBuild(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, a *golden.Archive) {
		var f Facts
		if err := yaml.UnmarshalStrict(a.Data("facts.yaml"), &f); err != nil {
			t.Fatal(err)
		}
		findings := Build(f)
		var b strings.Builder
		WriteText(&b, findings, nil)
		a.Want(t, "findings", b.String())
		for _, finding := range findings {
			if (finding.Remedy == "") != (finding.Severity == OK) {
				t.Errorf("%+v: what is not well has a remedy, and nothing else", finding)
			}
		}
	})
}

func TestWorst(t *testing.T) {
	for want, findings := range map[Severity][]Finding{
		OK:      {{Severity: OK}},
		Warning: {{Severity: OK}, {Severity: Warning}, {Severity: OK}},
		Error:   {{Severity: Warning}, {Severity: Error}, {Severity: Warning}},
	} {
		if got := Worst(findings); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if Worst(nil) != OK {
		t.Error("nothing is not ok")
	}
}

func TestClusterOf(t *testing.T) {
	node := func(name, address, pods string) *model.Node {
		return &model.Node{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(address)}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(pods)}}
	}
	service := func(ip string) *corev1.Service {
		return &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}}}
	}
	s := &model.Snapshot{
		Nodes: map[string]*model.Node{"b": node("b", "192.0.2.2", "10.1.2.0/24"), "a": node("a", "192.0.2.1", "10.1.1.0/24")},
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{
			{Name: "x"}: service("10.96.0.1"), {Name: "y"}: service("10.96.0.200"), {Name: "z"}: service("None"), {Name: "6"}: service("fd00::1:5"),
		}),
		Pools: map[string]*v1alpha1.AddressPool{"edge": {
			ObjectMeta: metav1.ObjectMeta{Name: "edge"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"198.51.100.0/30", "no address"}},
		}},
		Claims: map[string]*v1alpha1.AddressClaim{"198.51.100.1": {Spec: v1alpha1.AddressClaimSpec{Address: "198.51.100.1"}}},
	}
	data, err := yaml.Marshal(ClusterOf(s, "a"))
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/cluster.yaml", string(data))
}
