package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/health"
	"hythe.dev/hythe/node/kernel/conntrack"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft"
	"hythe.dev/hythe/node/kernel/nft/readback"
	"hythe.dev/hythe/node/proxy"
)

// TestServiceFlags reads flags into the settings of Services.
func TestServiceFlags(t *testing.T) {
	for args, want := range map[string]proxy.Settings{
		"": {},
		"--external-ips --nodeport-source-ranges":                      {ExternalIPs: true, NodePortSourceRanges: true},
		"--nodeport-addresses=primary,192.0.2.0/24":                    {NodePortPrimary: true, NodePortRanges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		"--nodeport-addresses=2001:db8::/32,192.0.2.0/24,192.0.2.4/30": {NodePortRanges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
	} {
		n := &node{}
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		n.services.addFlags(flags)
		if err := flags.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		got, problems := n.proxySettings()
		if got.ExternalIPs != want.ExternalIPs || got.NodePortSourceRanges != want.NodePortSourceRanges || got.NodePortPrimary != want.NodePortPrimary ||
			!slices.Equal(got.NodePortRanges, want.NodePortRanges) || len(got.LocalAddresses) == 0 || len(problems) > 0 {
			t.Errorf("%s: %+v, %v", args, got, problems)
		}
	}
	for _, bad := range []string{"primary,192.0.2.1", "all", ""} {
		if err := new(nodePortAddresses).Set(bad); err == nil || !strings.Contains(err.Error(), "192.0.2.0/24") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestIsWhole: what the kernel refuses of one Service neither makes the node unwell nor has the flows of all others looked at each time.
func TestIsWhole(t *testing.T) {
	f := proxy.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Protocol: proxy.TCP, Port: 80}
	for name, c := range map[string]struct {
		err     error
		whole   bool
		refused int
	}{
		"nothing wrong": {nil, true, 0},
		"a refusal":     {fmt.Errorf("set table: %w", &nft.RefusedError{Frontends: []proxy.Frontend{f}}), true, 1},
		"a failure":     {fmt.Errorf("set table: %w", os.ErrDeadlineExceeded), false, 0},
	} {
		if whole, refused := isWhole(c.err); whole != c.whole || len(refused) != c.refused {
			t.Errorf("%s: %v %v", name, whole, refused)
		}
	}
}

// servicesNode is a node that brings Services into the network namespace of the test.
func servicesNode(t *testing.T) *node {
	t.Helper()
	n := &node{nodeOptions: nodeOptions{name: "n1"}, issues: map[string][]model.Problem{}, texts: map[string]func() string{}}
	n.log = slog.New(slog.NewTextHandler(t.Output(), nil))
	n.health = health.NewServer(n.log, "")
	var err error
	if n.table, err = nft.New(n.log, nil, nft.WithoutOwner()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.table.Close() })
	if n.flows, err = conntrack.New(n.log, nil); err != nil {
		t.Fatal(err)
	}
	if n.links, err = link.New(n.log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.links.Close)
	return n
}

// TestServicesOfNode brings a Snapshot into the kernel, and to those who ask about its Service.
func TestServicesOfNode(t *testing.T) {
	testenv.NetNS(t)
	n := servicesNode(t)
	key := model.Key{Namespace: "shop", Name: "web"}
	s := &model.Snapshot{
		Nodes: map[string]*model.Node{"n1": {Name: "n1"}},
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: {ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1", ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 32000,
			Ports: []corev1.ServicePort{{Port: 80}}}}}),
		ServiceCIDRs: map[string]*networkingv1.ServiceCIDR{"kubernetes": {Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}},
	}
	if problems, err := n.setProxy(t.Context(), s); err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	for to, reason := range map[string]string{"10.96.0.1": "no-endpoint", "10.96.0.2": "unallocated"} {
		f, err := readback.Lookup(readback.Query{From: netip.MustParseAddr("192.0.2.1"), To: netip.MustParseAddr(to), Protocol: proxy.TCP, Port: 80})
		if err != nil || f.Reason != reason {
			t.Errorf("%s: %+v, %v", to, f, err)
		}
	}
	for _, c := range conntrack.Sysctls() {
		if is, err := os.ReadFile("/proc/sys/" + c.Name); err != nil || strings.TrimSpace(string(is)) != c.Value {
			t.Errorf("%s is %s, want %s, %v", c.Name, is, c.Value, err)
		}
	}
	w := httptest.NewRecorder()
	n.health.ServiceHandler(32000).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	body, _ := io.ReadAll(w.Body)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(string(body), `"name":"web"`) || !strings.Contains(string(body), `"serviceProxyHealthy":true`) {
		t.Errorf("%d %s", w.Code, body)
	}
}

// TestFlowsOfRecalledState starts without an API server: a flow to an endpoint that came after the state of before lives on,
// until the API server says that there is no such endpoint.
func TestFlowsOfRecalledState(t *testing.T) {
	testenv.NetNS(t)
	n := servicesNode(t)
	key := model.Key{Namespace: "shop", Name: "dns"}
	s := &model.Snapshot{
		Recalled: true,
		Nodes:    map[string]*model.Node{"n1": {Name: "n1"}},
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: {ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}}}}),
		Endpoints: model.ObjectsOf(map[model.Key]*model.ServiceEndpoints{key: {Ports: []model.PortEndpoints{{Protocol: corev1.ProtocolUDP,
			Endpoints: []model.Endpoint{{AddrPort: netip.MustParseAddrPort("10.244.0.2:53"), Ready: true, Serving: true}}}}}}),
	}
	const newer = "10.244.0.9"
	flow(t, "-I", "-p", "udp", "-s", "10.244.0.5", "-d", "10.96.0.1", "--orig-port-src", "5000", "--orig-port-dst", "53", "-r", newer, "-q", "10.244.0.5",
		"--reply-port-src", "53", "--reply-port-dst", "5000", "-g", newer, "-t", "300")
	lives := func() bool { return strings.Contains(flow(t, "-L", "-p", "udp"), "src="+newer) }
	if !lives() {
		t.Fatal("there is no flow")
	}
	look := func() { // on this thread, which is in the network namespace
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := n.flows.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if problems, err := n.setProxy(t.Context(), s); err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	look()
	if !lives() {
		t.Error("the flow was ended by a state of before")
	}
	fresh := *s
	fresh.Recalled = false
	if problems, err := n.setProxy(t.Context(), &fresh); err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	for range 20 {
		if look(); !lives() {
			break
		}
	}
	if lives() {
		t.Error("the flow to an endpoint that is gone was not ended")
	}
}

// flow runs the tool conntrack.
func flow(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("conntrack", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("conntrack %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestHealthAddresses asks where a node answers for its Services: nowhere but at its first addresses, before these are known too.
func TestHealthAddresses(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.11")
	for _, c := range []struct {
		flags string
		node  *model.Node
		want  []netip.Prefix
	}{
		{"", nil, nil},
		{"--nodeport-addresses=primary", nil, []netip.Prefix{}},
		{"--nodeport-addresses=primary", &model.Node{Addresses: []netip.Addr{addr}}, []netip.Prefix{netip.PrefixFrom(addr, 32)}},
	} {
		n := &node{}
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		n.services.addFlags(flags)
		if err := flags.Parse(strings.Fields(c.flags)); err != nil {
			t.Fatal(err)
		}
		settings, _ := n.proxySettings()
		if got := n.services.healthAt(settings, c.node); !slices.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%q: %#v, want %#v", c.flags, got, c.want)
		}
	}
}
