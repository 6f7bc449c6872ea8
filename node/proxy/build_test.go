package proxy_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// self is the node that all cases are built for.
const self = "node-1"

func load(t *testing.T, yaml []byte) *model.Snapshot {
	t.Helper()
	file := filepath.Join(t.TempDir(), "input.yaml")
	if err := os.WriteFile(file, yaml, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := kube.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Problems {
		t.Errorf("input: %s", p)
	}
	return s
}

// TestBuild reads Kubernetes YAML from each file of testdata and compares the state's text with what stands beside it.
func TestBuild(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, archive *golden.Archive) {
		s := load(t, archive.Data("input.yaml"))
		settings := flags(t, string(archive.Comment))
		settings.HostPorts = hostPorts(t, archive)
		settings.LocalAddresses = s.Nodes[self].Addresses
		state, problems := proxy.Build(s, self, settings)
		got := state.String()
		for _, p := range problems {
			got += "problem " + p.String() + "\n"
		}
		again, problemsAgain := proxy.Build(s, self, settings)
		if !reflect.DeepEqual(state, again) || !slices.Equal(problems, problemsAgain) {
			t.Error("a second Build of the same snapshot returned something else")
		}
		archive.Want(t, "want", got)
	})
}

// flags reads the settings from those lines of a comment that begin with a flag of hythe node.
func flags(t *testing.T, comment string) proxy.Settings {
	settings := proxy.DefaultSettings()
	for line := range strings.Lines(comment) {
		words := strings.Fields(line)
		if len(words) == 0 || !strings.HasPrefix(words[0], "--") {
			continue
		}
		switch flag, values := words[0], words[1:]; flag {
		case "--balancer-class":
			settings.BalancerClasses = values
		case "--reset-gone":
			settings.ResetGone = true
		case "--external-ips":
			settings.ExternalIPs = true
		case "--nodeport-source-ranges":
			settings.NodePortSourceRanges = true
		case "--nodeport-addresses":
			var err error
			if settings.NodePortRanges, settings.NodePortPrimary, err = proxy.ParseNodePortAddresses(values); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("unknown flag %s", flag)
		}
	}
	return settings
}

// hostPorts reads lines such as "tcp 192.168.1.11:8080 10.244.1.2,fd00::2:80 default/web"; "*" is all addresses.
func hostPorts(t *testing.T, archive *golden.Archive) (out []proxy.HostPort) {
	for _, f := range archive.Files {
		if f.Name != "hostports" {
			continue
		}
		for line := range strings.Lines(string(f.Data)) {
			words := strings.Fields(line)
			split := func(s string) (string, uint16) {
				i := strings.LastIndex(s, ":")
				port, err := strconv.ParseUint(s[i+1:], 10, 16)
				if err != nil {
					t.Fatal(err)
				}
				return s[:i], uint16(port)
			}
			p := proxy.HostPort{Protocol: map[string]proxy.Protocol{"tcp": proxy.TCP, "udp": proxy.UDP}[words[0]]}
			host, port := split(words[1])
			if p.Port = port; host != "*" {
				p.Addr = netip.MustParseAddr(host)
			}
			pods, port := split(words[2])
			p.PodPort = port
			for pod := range strings.SplitSeq(pods, ",") {
				p.Pods = append(p.Pods, netip.MustParseAddr(pod))
			}
			if len(words) > 3 {
				p.Owner.Namespace, p.Owner.Name, _ = strings.Cut(words[3], "/")
			}
			out = append(out, p)
		}
	}
	return out
}

// TestBuildServiceAgrees builds a snapshot Service by Service and finds the same as Build.
func TestBuildServiceAgrees(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/loadbalancer.txtar")
	if err != nil {
		t.Fatal(err)
	}
	s := load(t, (&golden.Archive{Archive: archive}).Data("input.yaml"))
	whole, _ := proxy.Build(s, self, proxy.DefaultSettings())
	vips := map[string][]netip.Addr{}
	for _, claim := range s.Claims {
		for _, ref := range claim.Spec.Services {
			vips[ref.Name] = append(vips[ref.Name], netip.MustParseAddr(claim.Spec.Address))
		}
	}
	for key, svc := range s.Services.All() {
		part, _ := proxy.BuildService(svc, s.Endpoints.Get(key), vips[key.Name], model.Own{}, s.Nodes[self], self)
		for f, b := range part.Frontends {
			if !whole.Frontends[f].Equal(b) {
				t.Errorf("%s of %s: alone %v, in the whole %v", f, key, b, whole.Frontends[f])
			}
			delete(whole.Frontends, f)
		}
	}
	if len(whole.Frontends) > 0 {
		t.Errorf("frontends of no Service: %v", whole.Frontends)
	}
}
