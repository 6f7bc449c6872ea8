package trace_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/internal/trace"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/internal/trace/road"
)

// A rig is a lab that is broken and mended.
type rig struct {
	*testing.T
	lab     lab.Lab
	hythe   string
	gateway model.Key
}

// newRig starts a lab on a copy of the examples and of the test's own manifests.
func newRig(t *testing.T) *rig {
	t.Helper()
	testenv.Root(t)
	t.Setenv("ENVOY", testenv.Envoy(t))
	dir, err := os.MkdirTemp("", "hythetrace") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, hythe: filepath.Join(dir, "bin", "hythe"), gateway: model.Key{Namespace: "hythe-system", Name: "gateway"}}
	if r.lab, err = lab.New("tracetest", filepath.Join(dir, "lab")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.lab.Down(); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir)
			return
		}
		t.Logf("logs are in %s", r.lab.Logs())
	})
	for _, name := range []string{"hythe", "hythe-cni"} {
		r.command("go", "build", "-o", filepath.Join(dir, "bin", name), "hythe.dev/hythe/cmd/"+name)
	}
	manifests := filepath.Join(dir, "manifests")
	if err := os.CopyFS(manifests, os.DirFS("../../examples")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(manifests, os.DirFS("testdata/lab")); err != nil {
		t.Fatal(err)
	}
	r.command(r.hythe, "lab", "up", "--name", r.lab.Name, "--dir", r.lab.Dir, "--manifests", manifests, "--fill")
	return r
}

func (r *rig) command(name string, args ...string) string {
	r.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		r.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// on runs a command on a machine or in a pod of the lab.
func (r *rig) on(machine string, args ...string) string {
	r.Helper()
	return r.command(r.hythe, append([]string{"lab", "shell", "--name", r.lab.Name, "--dir", r.lab.Dir, machine, "--"}, args...)...)
}

// ask traces once.
func (r *rig) ask(question, from string) (trace.Trace, asked.Evidence) {
	r.Helper()
	q, err := asked.Parse(question, from, netip.Addr{})
	if err != nil {
		r.Fatal(err)
	}
	sockets, err := filepath.Glob(r.lab.Admin("*/*"))
	if err != nil {
		r.Fatal(err)
	}
	for i := range sockets {
		sockets[i] = "unix:" + sockets[i]
	}
	c, err := inspect.Open(r.Context(), sockets)
	if err != nil {
		r.Fatal(err)
	}
	ev := road.Ask(r.Context(), c, q, r.gateway)
	out, err := trace.Build(q, ev)
	if err != nil {
		r.Fatal(err)
	}
	return out, ev
}

// A want is what a trace has to say.
type want struct {
	verdict trace.Verdict
	// where, part and state are of the hop that must be there, text is in its text, remedy in the last line.
	where, part string
	state       asked.State
	text        string
	remedy      string
}

func (w want) in(t trace.Trace) bool {
	if t.Verdict != w.verdict || !strings.Contains(t.Remedy, w.remedy) {
		return false
	}
	for _, h := range t.Hops {
		if h.Part == w.part && h.State == w.state && strings.HasPrefix(h.Where, w.where) && strings.Contains(h.Text, w.text) {
			return true
		}
	}
	return w.part == ""
}

// patience is how long the lab may take to follow a change.
const patience = 20 * time.Second

// until traces until the answer is as wanted.
func (r *rig) until(question, from string, w want) {
	r.Helper()
	var got trace.Trace
	var ev asked.Evidence
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if got, ev = r.ask(question, from); w.in(got) {
			if w.part != "" || !strings.Contains(r.Name(), "/") {
				r.record(got, ev)
			}
			return
		}
	}
	var text strings.Builder
	got.WriteText(&text, ev.Now, false)
	r.Fatalf("wanted %+v, got\n%s", w, &text)
}

// record keeps what was read back, where HYTHE_TRACE_RECORD names a folder: input for testdata.
func (r *rig) record(got trace.Trace, ev asked.Evidence) {
	dir := os.Getenv("HYTHE_TRACE_RECORD")
	if dir == "" {
		return
	}
	data, err := json.MarshalIndent(map[string]any{"question": got.Question, "evidence": ev}, "", "  ")
	if err != nil {
		r.Fatal(err)
	}
	var text strings.Builder
	got.WriteText(&text, ev.Now, false)
	name := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(r.Name(), "TestLab/"), "/", "_"))
	for path, content := range map[string][]byte{name + ".json": data, name + ".txt": []byte(text.String())} {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			r.Fatal(err)
		}
	}
}

// reaches says whether a client outside of the cluster gets 200 for a URL.
func (r *rig) reaches(url string, to string) error {
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return topology.Dial(ctx, r.lab.Namespace(topology.Client), "tcp", to)
		},
	}}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}

// pod returns the name and the node of the first pod of a Deployment on a node, or anywhere.
func (r *rig) pod(namespace, owner, node string) lab.PodStatus {
	r.Helper()
	st, err := r.lab.Client().Status(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	for _, p := range st.Pods {
		if p.Namespace == namespace && p.Owner == owner && (node == "" || p.Node == node) {
			return p
		}
	}
	r.Fatalf("no pod of %s/%s on %q in %+v", namespace, owner, node, st.Pods)
	return lab.PodStatus{}
}

const (
	shop = "https://shop.example.com/"
	vip  = "203.0.113.10"
)

// fixed gives Service broken/fixed an address and a port as its only endpoint, ready or not whatever happens to the pod.
func (r *rig) fixed(address netip.AddrPort, node string, ready bool) {
	r.Helper()
	st, err := r.lab.Client().Status(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	text := fmt.Sprintf(`apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: fixed-1, namespace: broken, labels: {kubernetes.io/service-name: fixed}}
addressType: IPv4
ports: [{name: http, port: %d, protocol: TCP}]
endpoints: [{addresses: [%s], nodeName: %s, conditions: {ready: %t}}]
`, address.Port(), address.Addr(), node, ready)
	if err := os.WriteFile(filepath.Join(st.Manifests, "fixed.yaml"), []byte(text), 0o644); err != nil {
		r.Fatal(err)
	}
}

// owner waits until exactly one node has the VIP.
func (r *rig) owner() string {
	r.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		st, err := r.lab.Client().Status(r.Context())
		for _, v := range st.VIPs {
			if err == nil && v.Address == vip && len(v.Owners) == 1 {
				return v.Owners[0]
			}
		}
		if time.Now().After(deadline) {
			r.Fatalf("no owner of %s in %+v, %v", vip, st.VIPs, err)
		}
	}
}

func (r *rig) hold(process string) {
	r.Helper()
	if err := r.lab.Client().Kill(r.Context(), process, true); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) release(process string) {
	r.Helper()
	if err := r.lab.Client().Start(r.Context(), process); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) cable(machine string, in bool) {
	r.Helper()
	if err := topology.SetCable(r.lab.Name, machine, in); err != nil {
		r.Fatal(err)
	}
}

// well waits until a request arrives again, in the trace and in fact.
func (r *rig) well() {
	r.Helper()
	r.until(shop, "", want{verdict: trace.Arrives})
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := r.reaches(shop, vip+":443")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.Fatalf("the trace says that it arrives, and the client gets: %v", err)
		}
	}
}

// lost fails the test if a request arrives in spite of what a trace says.
func (r *rig) lost() {
	r.Helper()
	if err := r.reaches(shop, vip+":443"); err == nil {
		r.Error("the trace says that it does not arrive, and the client gets 200")
	}
}

// TestLab breaks one thing after the other in a lab: the trace must name the hop and what to do, and be right about
// whether a request arrives.
func TestLab(t *testing.T) {
	r := newRig(t)
	breakages := []struct {
		name string
		run  func(*rig)
	}{
		{"nothing", (*rig).well},
		{"no such host", func(r *rig) {
			r.until("https://shop.example.org/", "", want{trace.Fails, r.owner() + "/envoy", "route", asked.Broken, "404", "shop.example.org"})
		}},
		{"no claim", func(r *rig) {
			r.until("broken/unclaimed", "", want{trace.Fails, "cluster", "service", asked.Broken, "has no address", "192.0.2.99"})
		}},
		{"no endpoints", func(r *rig) {
			r.until("broken/empty", "node3", want{trace.Fails, "node3/kernel", "frontend", asked.Broken, "refused", "spec.selector"})
		}},
		{"no endpoints behind Envoy", func(r *rig) {
			r.fixed(netip.MustParseAddrPort("10.244.3.200:8080"), "node3", false)
			r.until("http://broken.example.com/fixed", "", want{verdict: trace.Fails, where: r.owner() + "/envoy", part: "endpoints", state: asked.Broken})
		}},
		{"pod refuses", func(r *rig) {
			pod := r.pod("shop", "web", "node3")
			r.fixed(netip.AddrPortFrom(netip.MustParseAddr(pod.Address), 9999), "node3", true)
			r.until("broken/fixed", "node1", want{trace.Fails, "node3/pod", "pod", asked.Broken, "refused", "targetPort"})
			r.until("http://broken.example.com/fixed", "", want{trace.Fails, "node3/pod", "pod", asked.Broken, "refused", "targetPort"})
		}},
		{"no such pod", func(r *rig) {
			r.fixed(netip.MustParseAddrPort("10.244.3.200:8080"), "node3", true)
			r.until("broken/fixed", "node1", want{trace.Fails, "node3/pod", "pod", asked.Broken, "no pod's address", "EndpointSlice"})
		}},
		{"foreign route", func(r *rig) {
			pod := r.pod("shop", "web", "node3")
			r.fixed(netip.AddrPortFrom(netip.MustParseAddr(pod.Address), 8080), "node3", true)
			r.on("node1", "ip", "route", "add", "blackhole", pod.Address)
			r.until("broken/fixed", "node1", want{trace.Fails, "node1/kernel", "overlay", asked.Broken, "no way", "node1"})
			r.on("node1", "ip", "route", "del", "blackhole", pod.Address)
			r.until("broken/fixed", "node1", want{verdict: trace.Arrives})
		}},
		{"link of the source pod is gone", func(r *rig) {
			pod := r.pod("blog", "blog", "")
			link := strings.Fields(r.on(pod.Node, "ip", "-o", "route", "get", pod.Address))[2]
			r.on(pod.Node, "ip", "link", "del", link)
			r.until("shop/web", pod.Address, want{trace.Fails, pod.Node + "/pod", "source", asked.Broken, link, "Delete the pod"})
		}},
		{"link of the pod is gone", func(r *rig) {
			pod := r.pod("shop", "web", "node3")
			link := strings.Fields(r.on("node3", "ip", "-o", "route", "get", pod.Address))[2]
			r.on("node3", "ip", "link", "del", link)
			r.until("broken/fixed", "node1", want{trace.Fails, "node3/pod", "pod", asked.Broken, link, "Delete the pod"})
			// The kubelet finds it not ready, and the rest serves on.
			r.well()
		}},
		{"node agent is down", func(r *rig) {
			r.hold("node3/node")
			r.until("broken/fixed", "node1", want{trace.Unclear, "node3", "pod", asked.Unknown, "cannot be looked at", "Start hythe node on node3"})
			r.release("node3/node")
			r.well()
		}},
		{"gateway is down", func(r *rig) {
			owner := r.owner()
			r.hold(owner + "/gateway")
			r.until(shop, "", want{trace.Unclear, owner + "/envoy", "request", asked.Unknown, "cannot be read", "Start hythe gateway on " + owner})
			if err := r.reaches(shop, vip+":443"); err != nil {
				r.Errorf("Envoy does not go on alone: %v", err)
			}
			r.release(owner + "/gateway")
			r.well()
		}},
		{"foreign host on the VIP", func(r *rig) {
			r.on("control", "ip", "addr", "add", vip+"/32", "dev", "eth0")
			r.until(shop, "", want{trace.Fails, "LAN", "arp", asked.Broken, "(no node)", "02:68:79:00:02:64"})
			r.on("control", "ip", "addr", "del", vip+"/32", "dev", "eth0")
			r.well()
		}},
		{"heartbeats are lost", func(r *rig) {
			owner := r.owner()
			r.on(owner, "nft", "add table inet lossy; add chain inet lossy out { type filter hook output priority 0; }; add rule inet lossy out udp dport 7472 drop")
			r.until(shop, "", want{trace.Arrives, "nodes", "owner", asked.Differs, "hears nothing of " + owner, "7472"})
			r.on(owner, "nft", "delete table inet lossy")
			r.until(shop, "", want{trace.Arrives, "nodes", "owner", asked.OK, "agree", ""})
		}},
		{"somebody's rule drops at the owner", func(r *rig) {
			owner := r.owner()
			r.on(owner, "nft", "add table inet evil; add chain inet evil x { type filter hook forward priority 0; }; add rule inet evil x tcp dport 8443 drop")
			r.until(shop, "", want{trace.Perhaps, owner + "/kernel", "firewall", asked.Unknown, "table inet evil", "nft list table inet evil"})
			r.lost()
			r.on(owner, "nft", "delete table inet evil")
			r.well()
		}},
		{"somebody's rule drops the overlay", func(r *rig) {
			pod := r.pod("shop", "web", "node2")
			r.fixed(netip.AddrPortFrom(netip.MustParseAddr(pod.Address), 8080), "node2", true)
			r.on("node2", "nft", "add table ip evil; add chain ip evil x { type filter hook input priority 0; }; add rule ip evil x udp dport 4789 drop")
			r.until("broken/fixed", "node3", want{trace.Fails, "node3/kernel", "overlay", asked.Broken, "no answer within", "UDP port 4789"})
			r.on("node2", "nft", "delete table ip evil")
			r.until("broken/fixed", "node3", want{verdict: trace.Arrives})
			r.well()
		}},
		{"both cables are out", func(r *rig) {
			r.cable("node1", false)
			r.cable("node2", false)
			r.until(shop, "", want{trace.Fails, "nodes", "owner", asked.Broken, "eth0 has no carrier", "cable"})
			r.lost()
			r.cable("node1", true)
			r.cable("node2", true)
			r.well()
		}},
		{"both Envoys are down", func(r *rig) {
			r.hold("node1/envoy")
			r.hold("node2/envoy")
			r.until(shop, "", want{verdict: trace.Fails})
			r.lost()
			r.release("node1/envoy")
			r.release("node2/envoy")
			r.well()
		}},
	}
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			inner := *r
			inner.T = t
			started := time.Now()
			b.run(&inner)
			t.Logf("%.1f s", time.Since(started).Seconds())
		})
		if t.Failed() {
			return
		}
	}
	t.Run("live", func(t *testing.T) { live(t, &rig{T: t, lab: r.lab, hythe: r.hythe}) })
	t.Run("exit codes", func(t *testing.T) { exitCodes(t, r) })
}

// live sends marked requests through the command: what it says of them must be what the command saw and conntrack has.
func live(t *testing.T, r *rig) {
	for _, c := range []struct {
		question, from string
		parts          []string // in this order
	}{
		{shop, "", []string{"connect", "flow", "certificate", "listener", "request", "flow", "pod", "answer"}},
		{"shop/web", "node3", []string{"connect", "flow", "pod"}},
		{"http://shop.example.com/", "", []string{"connect", "flow", "listener", "request", "answer"}},
	} {
		args := []string{"trace", "--lab", r.lab.Name, "--lab-dir", r.lab.Dir, "--live", "-o", "json", c.question}
		if c.from != "" {
			args = append(args, "--from", c.from)
		}
		missing, out := "", ""
		for range 2 { // one request may meet a stall of the machine
			said, err := exec.Command(r.hythe, args...).CombinedOutput()
			if out = string(said); err != nil {
				out += err.Error() // and is no JSON
			}
			if missing = lacks(out, c.parts); missing == "" {
				break
			}
			t.Logf("%s from %q: %s", c.question, c.from, missing)
		}
		if missing != "" {
			t.Errorf("%s from %q: %s in\n%s", c.question, c.from, missing, out)
		}
	}
}

// lacks says what a trace with --live lacks: each hop must be OK, and parts must be among them in this order.
func lacks(out string, parts []string) string {
	var got struct{ Live trace.Trace }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return err.Error()
	}
	next := 0
	for _, h := range got.Live.Hops {
		if h.State != asked.OK {
			return fmt.Sprintf("%s %s is %s: %s", h.Where, h.Part, h.State, h.Text)
		}
		if next < len(parts) && h.Part == parts[next] {
			next++
		}
	}
	if next != len(parts) {
		return "no hop " + parts[next]
	}
	return ""
}

// exitCodes runs the command itself.
func exitCodes(t *testing.T, r *rig) {
	for question, code := range map[string]int{shop: 0, "broken/empty": 1, "what": 2, "shop/web --from nowhere": 2, "": 2} {
		args := append([]string{"trace", "--lab", r.lab.Name, "--lab-dir", r.lab.Dir}, strings.Fields(question)...)
		out, err := exec.Command(r.hythe, args...).CombinedOutput()
		got := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			got = exit.ExitCode()
		}
		if got != code || len(out) == 0 {
			t.Errorf("hythe trace %s: exit code %d (%v), want %d\n%s", question, got, err, code, out)
		}
	}
}
