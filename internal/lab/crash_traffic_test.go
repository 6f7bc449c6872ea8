package lab_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/load"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/model"
)

// A stream is traffic of one kind that does not stop, and what became of each request.
type stream struct {
	name string

	mu      sync.Mutex
	results []load.Result
}

// since returns the requests that ended well, and those that were lost, since a moment.
func (s *stream) since(at time.Time) (answered, lost []load.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.results {
		switch {
		case r.Started.Add(r.Took).Before(at):
		case r.Err != nil:
			lost = append(lost, r)
		default:
			answered = append(answered, r)
		}
	}
	return answered, lost
}

// outage is the longest time without an answer between two moments.
func (s *stream) outage(from, to time.Time) time.Duration {
	answered, _ := s.since(from)
	ends := make([]time.Time, 0, len(answered)+1)
	for _, r := range answered {
		ends = append(ends, r.Started.Add(r.Took))
	}
	ends = append(ends, to)
	slices.SortFunc(ends, time.Time.Compare)
	var longest time.Duration
	for i, end := range ends {
		longest = max(longest, end.Sub(from))
		from = ends[i]
	}
	return longest
}

// A traffic is all streams, and the announcements heard on the LAN.
type traffic struct {
	vip     *stream   // HTTP/1.1 and HTTP/2 over TLS, through the VIP and Envoy
	inside  []*stream // what never meets Envoy, and so never may be lost
	streams []*stream
	arp     *announcements
}

// traffic starts all streams; they end with the test.
func startTraffic(t *testing.T, l lab.Lab, st lab.Status) *traffic {
	t.Helper()
	pem, err := os.ReadFile(l.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	snapshot, err := kube.Load(l.State())
	if err != nil {
		t.Fatal(err)
	}
	service := snapshot.Services.Get(model.Key{Namespace: "shop", Name: "web"})
	cluster := netip.AddrPortFrom(netip.MustParseAddr(service.Spec.ClusterIP), 80)
	pod := func(node string) string {
		for _, p := range st.Pods {
			if p.Owner == "web" && p.Node == node {
				return p.Netns
			}
		}
		t.Fatalf("no pod of web on %s", node)
		return ""
	}
	vip := netip.AddrPortFrom(netip.MustParseAddr(st.VIPs[0].Address), 443)
	client := l.Namespace(topology.Client)
	tr := &traffic{arp: listenARP(t, l, vip.Addr())}
	run := func(name string, c *load.Client) *stream {
		s := &stream{name: name}
		c.Done = func(r load.Result) {
			s.mu.Lock()
			s.results = append(s.results, r)
			s.mu.Unlock()
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			c.Run(ctx)
			close(ended)
		}()
		t.Cleanup(func() {
			cancel()
			<-ended
		})
		tr.streams = append(tr.streams, s)
		return s
	}
	tr.vip = run("VIP, HTTPS", &load.Client{Namespace: client, To: vip, Host: "shop.example.com", Path: "/", Roots: roots, Rate: 100})
	for _, n := range nodeNames {
		tr.inside = append(tr.inside,
			run("NodePort on "+n+", one connection", &load.Client{Namespace: client, To: nodePort(n), Host: "cart", Path: "/", Plain: true, Connections: 1, Rate: 10}),
			run("ClusterIP from a pod on "+n+", one connection", &load.Client{Namespace: pod(n), To: cluster, Host: "web", Path: "/", Plain: true, Connections: 1, Rate: 10}),
			run("ClusterIP from a pod on "+n+", new connections", &load.Client{Namespace: pod(n), To: cluster, Host: "web", Path: "/", Plain: true, Fresh: true, Connections: 1, Rate: 10}),
		)
	}
	return tr
}

func nodePort(node string) netip.AddrPort {
	for _, n := range topology.Build("").Nodes {
		if n.Name == node {
			return netip.AddrPortFrom(n.Address, 30080)
		}
	}
	return netip.AddrPort{}
}

// first returns a few results for people.
func first(results []load.Result) string {
	out := ""
	for _, r := range results[:min(3, len(results))] {
		out += fmt.Sprintf("\n  %s %s after %s: %v", r.Started.Format("15:04:05.000"), r.Protocol, r.Took.Round(time.Millisecond), r.Err)
	}
	return out
}

// announcements counts gratuitous ARP for a VIP.
type announcements struct {
	mu    sync.Mutex
	heard []announcement
}

type announcement struct {
	at  time.Time
	mac string
}

func listenARP(t *testing.T, l lab.Lab, vip netip.Addr) *announcements {
	t.Helper()
	var conn *packet.Conn
	err := topology.Do(l.Namespace(topology.Control), func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &announcements{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			n, _, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			// Sender and target address are the same in an announcement (RFC 5227 section 1.1).
			if err == nil && n >= 42 && bytes.Equal(buf[28:32], vip.AsSlice()) && bytes.Equal(buf[38:42], vip.AsSlice()) {
				a.mu.Lock()
				a.heard = append(a.heard, announcement{time.Now(), net.HardwareAddr(buf[22:28]).String()})
				a.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.SetReadDeadline(time.Now())
		<-ended
		_ = conn.Close()
	})
	return a
}

// since returns the MACs that announced the VIP since a moment, one for each announcement.
func (a *announcements) since(at time.Time) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, h := range a.heard {
		if h.at.After(at) {
			out = append(out, h.mac)
		}
	}
	return out
}
