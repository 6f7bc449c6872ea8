package speaker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/lb/arp"
	"hythe.dev/hythe/lb/members"
)

// The rig: hosts are network namespaces on one bridge, which has a namespace of its own. Each speaker and each
// backend is a process of its own (this test binary again), so that it can be killed and stopped for real.

const (
	rigPrefix = "172.30.7."
	rigVIP    = rigPrefix + "200"
	rigProbe  = 8081
	rigClient = 50 // the last byte of the client's address; it is the router, too
)

// A child is what a process of the rig is told to be.
type child struct {
	Role    string // "speaker" or "backend"
	Node    string
	Data    string
	Nodes   int
	Policy  corev1.ServiceExternalTrafficPolicy
	Release bool
}

func TestMain(m *testing.M) {
	if spec := os.Getenv("HYTHE_RIG_CHILD"); spec != "" {
		var c child
		if err := json.Unmarshal([]byte(spec), &c); err != nil {
			panic(err)
		}
		if err := c.run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func (c child) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if c.Role == "backend" {
		return http.ListenAndServe(fmt.Sprintf("0.0.0.0:%d", rigProbe), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "ok")
		}))
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("node", c.Node)
	s, err := New(Options{
		Node: c.Node, Data: c.Data, Release: c.Release, Log: log,
		Keys:       func() members.Keys { return members.Keys{[]byte("a key of the test rig")} },
		FirstProbe: arp.Question{Count: 2, MinGap: 100 * time.Millisecond, MaxGap: 200 * time.Millisecond, Wait: 100 * time.Millisecond},
	})
	if err != nil {
		return err
	}
	s.SetSnapshot(rigSnapshot(c.Nodes, c.Policy))
	go func() {
		for range time.Tick(50 * time.Millisecond) {
			var b strings.Builder
			s.WriteText(&b)
			path := filepath.Join(c.Data, "debug")
			_ = os.WriteFile(path+".new", []byte(b.String()), 0o600)
			_ = os.Rename(path+".new", path)
		}
	}()
	return s.Run(ctx)
}

func rigAddr(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("%s%d", rigPrefix, i)) }

// rigSnapshot is a cluster of n nodes with one VIP. Each node has one endpoint, at its own address.
func rigSnapshot(n int, policy corev1.ServiceExternalTrafficPolicy) *model.Snapshot {
	key := model.Key{Namespace: "default", Name: "web"}
	vip := netip.MustParseAddr(rigVIP)
	s := &model.Snapshot{
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: {
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Annotations: map[string]string{v1alpha1.ProbeAnnotation: "http:8081/ready"}},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: policy},
		}}),
		Claims: map[string]*v1alpha1.AddressClaim{v1alpha1.ClaimName(vip): {
			ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ClaimName(vip)},
			Spec: v1alpha1.AddressClaimSpec{Address: rigVIP, Announce: []string{"arp"},
				Services: []v1alpha1.ServiceRef{{Namespace: key.Namespace, Name: key.Name}}},
		}},
		Nodes: map[string]*model.Node{},
	}
	port := model.PortEndpoints{Name: "http", Protocol: corev1.ProtocolTCP}
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("n%d", i)
		s.Nodes[name] = &model.Node{Name: name, Addresses: []netip.Addr{rigAddr(i)}}
		port.Endpoints = append(port.Endpoints, model.Endpoint{AddrPort: netip.AddrPortFrom(rigAddr(i), 8080), Node: name, Ready: true, Serving: true})
	}
	s.Endpoints = model.ObjectsOf(map[model.Key]*model.ServiceEndpoints{key: {Ports: []model.PortEndpoints{port}}})
	return s
}

// A rig is a LAN with nodes and a client that asks who has the VIP.
type rig struct {
	t        *testing.T
	prefix   string
	dir      string
	nodes    int
	policy   corev1.ServiceExternalTrafficPolicy
	procs    map[string]*exec.Cmd
	client   *packet.Conn
	clientHW net.HardwareAddr

	mu   sync.Mutex
	seen []sighting
}

// A sighting is one ARP packet whose sender address is the VIP.
type sighting struct {
	at         time.Time
	node       string
	gratuitous bool
}

func newRig(t *testing.T, nodes int, policy corev1.ServiceExternalTrafficPolicy) *rig {
	testenv.Root(t)
	r := &rig{t: t, dir: t.TempDir(), prefix: fmt.Sprintf("hl-%d-", os.Getpid()), nodes: nodes, policy: policy, procs: map[string]*exec.Cmd{}}
	t.Cleanup(r.down)
	r.ip("netns add " + r.ns("lan"))
	for _, f := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"} {
		_ = exec.Command("ip", "netns", "exec", r.ns("lan"), "sh", "-c", "echo 0 > /proc/sys/net/bridge/"+f).Run()
	}
	r.ip("-n " + r.ns("lan") + " link add br0 type bridge stp_state 0 forward_delay 0")
	r.ip("-n " + r.ns("lan") + " link set br0 up")
	for i := 1; i <= nodes; i++ {
		r.host(fmt.Sprintf("n%d", i), i)
	}
	r.host("client", rigClient)
	r.listen()
	return r
}

func (r *rig) ns(host string) string { return r.prefix + host }

func (r *rig) ip(args string) {
	r.t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		r.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// hwOf is the MAC of the host with this last byte of the address.
func hwOf(i int) string { return fmt.Sprintf("02:00:00:00:07:%02x", i) }

func (r *rig) host(name string, i int) {
	r.ip("netns add " + r.ns(name))
	r.ip(fmt.Sprintf("-n %s link add eth0 address %s type veth peer name p%d netns %s", r.ns(name), hwOf(i), i, r.ns("lan")))
	r.ip(fmt.Sprintf("-n %s link set p%d master br0 up", r.ns("lan"), i))
	r.ip(fmt.Sprintf("-n %s addr add %s/24 dev eth0", r.ns(name), rigAddr(i)))
	r.ip("-n " + r.ns(name) + " link set lo up")
	r.ip("-n " + r.ns(name) + " link set eth0 up")
	if i != rigClient {
		r.ip(fmt.Sprintf("-n %s route add default via %s", r.ns(name), rigAddr(rigClient)))
	}
}

func (r *rig) down() {
	for _, cmd := range r.procs {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if r.client != nil {
		_ = r.client.Close()
	}
	logs, _ := filepath.Glob(filepath.Join(r.dir, "*", "*.log"))
	for _, path := range logs {
		data, _ := os.ReadFile(path)
		if strings.Contains(string(data), "DATA RACE") || strings.Contains(string(data), "panic:") {
			r.t.Errorf("%s:\n%s", path, data)
		}
	}
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(out)) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, r.prefix) {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}

// start starts a process on a host. Its data folder is kept over restarts.
func (r *rig) start(role, node string, mod ...func(*child)) {
	r.t.Helper()
	c := child{Role: role, Node: node, Nodes: r.nodes, Policy: r.policy, Data: r.data(node)}
	for _, f := range mod {
		f(&c)
	}
	spec, _ := json.Marshal(c)
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", r.ns(node), os.Args[0])
	cmd.Env = append(os.Environ(), "HYTHE_RIG_CHILD="+string(spec))
	log, err := os.OpenFile(filepath.Join(c.Data, role+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.procs[role+node] = cmd
}

func (r *rig) data(node string) string { return filepath.Join(r.dir, node) }

// signal sends a signal to a process; after one that ends it, it is waited for.
func (r *rig) signal(role, node string, sig syscall.Signal) {
	r.t.Helper()
	cmd := r.procs[role+node]
	if err := cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
		_ = cmd.Wait()
		delete(r.procs, role+node)
	}
}

func (r *rig) startAll() {
	for i := 1; i <= r.nodes; i++ {
		r.start("backend", fmt.Sprintf("n%d", i))
		r.start("speaker", fmt.Sprintf("n%d", i))
	}
}

// listen opens the client's packet socket and asks for the VIP every 10 ms.
func (r *rig) listen() {
	ns, err := netns.GetFromName(r.ns("client"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer ns.Close()
	testenv.InNetNS(r.t, ns, func() {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			r.t.Fatal(err)
		}
		r.clientHW = ifi.HardwareAddr
		if r.client, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil); err != nil {
			r.t.Fatal(err)
		}
	})
	go r.read()
	go func() {
		request := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, r.clientHW...)
		request = append(request, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
		request = append(append(request, r.clientHW...), rigAddr(rigClient).AsSlice()...)
		request = append(append(request, make([]byte, 6)...), netip.MustParseAddr(rigVIP).AsSlice()...)
		for {
			if _, err := r.client.WriteTo(request, &packet.Addr{HardwareAddr: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

// read notes what claims the VIP. It reads the bytes by itself and not with the code under test.
func (r *rig) read() {
	buf := make([]byte, 256)
	vip := netip.MustParseAddr(rigVIP).As4()
	for {
		n, _, err := r.client.ReadFrom(buf)
		if err != nil {
			return
		}
		if n < 42 || [4]byte(buf[28:32]) != vip {
			continue
		}
		sender := net.HardwareAddr(buf[22:28])
		name := sender.String()
		for i := 1; i <= r.nodes; i++ {
			if name == hwOf(i) && string(buf[6:12]) == string(sender) {
				name = fmt.Sprintf("n%d", i)
			}
		}
		r.mu.Lock()
		r.seen = append(r.seen, sighting{time.Now(), name, buf[0] == 0xff})
		r.mu.Unlock()
	}
}

// since lists the sightings after a time.
func (r *rig) since(t time.Time) []sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []sighting
	for _, s := range r.seen {
		if s.at.After(t) {
			out = append(out, s)
		}
	}
	return out
}

// owner waits until exactly one node has answered for 300 ms, and returns it.
func (r *rig) owner() string {
	r.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		start := time.Now()
		time.Sleep(300 * time.Millisecond)
		names := map[string]int{}
		for _, s := range r.since(start) {
			names[s.node]++
		}
		if len(names) == 1 {
			for name, n := range names {
				if n >= 10 {
					return name
				}
			}
		}
	}
	r.dump()
	r.t.Fatal("no single node answers for the VIP")
	return ""
}

// moved waits until another node than old answers, and returns it with the times from start to its first
// announcement and its first answer.
func (r *rig) moved(start time.Time, old string) (name string, announced, answered time.Duration) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		announced, answered = 0, 0
		for _, s := range r.since(start) {
			if s.node == old {
				continue
			}
			name = s.node
			if s.gratuitous && announced == 0 {
				announced = s.at.Sub(start)
			}
			if !s.gratuitous && answered == 0 {
				answered = s.at.Sub(start)
			}
		}
		if announced > 0 && answered > 0 {
			return name, announced, answered
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.dump()
	r.t.Fatalf("the VIP stays at %s", old)
	return "", 0, 0
}

// stays checks that only node answers for a while.
func (r *rig) stays(node string, d time.Duration) {
	r.t.Helper()
	start := time.Now()
	time.Sleep(d)
	n := 0
	for _, s := range r.since(start) {
		if s.node != node {
			r.dump()
			r.t.Fatalf("%s claims the VIP that belongs to %s", s.node, node)
		}
		n++
	}
	if n == 0 {
		r.t.Fatalf("%s does not answer", node)
	}
}

// debug waits until the text of a node holds what is wanted.
func (r *rig) debug(node, want string) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if data, _ := os.ReadFile(filepath.Join(r.data(node), "debug")); strings.Contains(string(data), want) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.dump()
	r.t.Fatalf("%s does not say %q", node, want)
}

// dump logs what the nodes know and said.
func (r *rig) dump() {
	for i := 1; i <= r.nodes; i++ {
		node := fmt.Sprintf("n%d", i)
		for _, f := range []string{"debug", "speaker.log"} {
			data, _ := os.ReadFile(filepath.Join(r.data(node), f))
			r.t.Logf("%s %s:\n%s", node, f, data)
		}
	}
}

func (r *rig) inForeign(command string) {
	r.t.Helper()
	args := append([]string{"netns", "exec", r.ns("foreign")}, strings.Fields(command)...)
	_ = exec.Command("ip", args...).Run() // arping's status says whether somebody answered
}
