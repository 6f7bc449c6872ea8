package lb

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// TestMoves follows one VIP over a failover and a restart of the controller.
func TestMoves(t *testing.T) {
	claim := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.1"}}
	claim.Spec.Address, claim.Spec.Services = "203.0.113.1", []v1alpha1.ServiceRef{{Namespace: "default", Name: "web"}}
	at := func(owners ...string) *model.Snapshot {
		s := &model.Snapshot{Claims: map[string]*v1alpha1.AddressClaim{"203.0.113.1": claim}, Reports: map[string]*v1alpha1.Report{}}
		for _, n := range owners {
			s.Reports["node-"+n] = &v1alpha1.Report{Component: "node", Node: n, Addresses: []string{"203.0.113.1", "198.51.100.1"}}
		}
		s.Reports["gateway-n9"] = &v1alpha1.Report{Component: "gateway", Node: "n9", Addresses: []string{"203.0.113.1"}}
		return s
	}
	_, owners := Moves(at(), nil)
	for i, step := range []struct {
		owners []string
		want   string
	}{
		{nil, ""},
		{[]string{"n1"}, "Service default/web: AddressAnnounced: 203.0.113.1 is announced by node n1."},
		{[]string{"n1"}, ""},
		{[]string{"n1", "n2"}, ""},
		{nil, ""},
		{[]string{"n2"}, "Service default/web: AddressMoved: 203.0.113.1 is announced by node n2 now, and was by node n1."},
	} {
		var got []string
		news, now := Moves(at(step.owners...), owners)
		owners = now
		for _, n := range news {
			got = append(got, n.String())
		}
		if text := strings.Join(got, "\n"); text != step.want {
			t.Errorf("step %d: %q, want %q", i, text, step.want)
		}
	}
	if news, _ := Moves(at("n2"), nil); len(news) != 0 {
		t.Errorf("a new controller tells what is no news: %v", news)
	}
	if _, now := Moves(&model.Snapshot{}, owners); len(now) != 0 {
		t.Errorf("an address that is claimed no more has an owner: %v", now)
	}
}
