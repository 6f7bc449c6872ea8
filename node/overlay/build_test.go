package overlay

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/model"
)

// TestBuild reads testdata/*.txtar: nodes.yaml holds Nodes; each file named after a Node holds what that one gets.
// The archive's comment may set mode=, vni=, port= and mtu=.
func TestBuild(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", testArchive)
}

func testArchive(t *testing.T, archive *golden.Archive) {
	settings := parseSettings(t, string(archive.Comment))
	snapshot := &model.Snapshot{Nodes: map[string]*model.Node{}}
	for _, f := range archive.Files {
		if f.Name == "nodes.yaml" {
			for _, doc := range strings.Split(string(f.Data), "\n---\n") {
				n := parseNode(t, doc)
				snapshot.Nodes[n.Name] = n
			}
			continue
		}
		state, problems := Build(snapshot, f.Name, settings)
		got := state.String()
		for _, p := range problems {
			got += p.String() + "\n"
		}
		archive.Want(t, f.Name, got)
	}
}

func parseSettings(t *testing.T, comment string) Settings {
	var s Settings
	for _, word := range strings.Fields(comment) {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			continue
		}
		var err error
		switch name {
		case "mode":
			s.Mode = value
		case "vni":
			_, err = fmt.Sscan(value, &s.VNI)
		case "port":
			_, err = fmt.Sscan(value, &s.Port)
		case "mtu":
			_, err = fmt.Sscan(value, &s.MTU)
		}
		if err != nil {
			t.Fatalf("setting %s: %v", word, err)
		}
	}
	return s
}

func parseNode(t *testing.T, doc string) *model.Node {
	var n corev1.Node
	if err := yaml.UnmarshalStrict([]byte(doc), &n); err != nil {
		t.Fatal(err)
	}
	out := &model.Node{Name: n.Name, Created: n.CreationTimestamp.Time}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			out.Addresses = append(out.Addresses, netip.MustParseAddr(a.Address))
		}
	}
	for _, c := range n.Spec.PodCIDRs {
		out.PodCIDRs = append(out.PodCIDRs, netip.MustParsePrefix(c))
	}
	return out
}

// TestBuildAgrees says that what node a expects of node b is what b gives itself.
func TestBuildAgrees(t *testing.T) {
	s := manyNodes(50)
	for _, self := range []string{"node-0", "node-7", "node-49"} {
		own, problems := Build(s, self, Settings{})
		if len(problems) > 0 {
			t.Fatalf("problems: %v", problems)
		}
		other, _ := Build(s, "node-13", Settings{})
		found := false
		for i, n := range other.Neighbours {
			if n.Addr == own.Addresses[0].Prefix.Addr() {
				found = true
				if n.MAC != own.VXLAN.MAC || other.Forwards[i].MAC != n.MAC || other.Forwards[i].Dst != own.VXLAN.Local {
					t.Errorf("node-13 expects %v %v, %s is %v", n, other.Forwards[i], self, own.VXLAN)
				}
			}
		}
		if !found {
			t.Errorf("node-13 has no neighbour for %s", self)
		}
	}
}

func TestPodMTU(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, test := range []struct {
		settings Settings
		node     netip.Addr
		want     int
	}{
		{Settings{}, v4, 1450},
		{Settings{}, v6, 1430},
		{Settings{Mode: None}, v4, 1500},
		{Settings{MTU: 1400}, v4, 1400},
	} {
		if got := PodMTU(test.settings, test.node, 1500); got != test.want {
			t.Errorf("PodMTU(%+v, %s, 1500) = %d, want %d", test.settings, test.node, got, test.want)
		}
	}
}

func manyNodes(n int) *model.Snapshot {
	s := &model.Snapshot{Nodes: map[string]*model.Node{}}
	for i := range n {
		name := fmt.Sprintf("node-%d", i)
		s.Nodes[name] = &model.Node{
			Name:      name,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})},
			PodCIDRs:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
		}
	}
	return s
}

func BenchmarkBuild5000(b *testing.B) {
	s := manyNodes(5000)
	for b.Loop() {
		Build(s, "node-1", Settings{})
	}
}
