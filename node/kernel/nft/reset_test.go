package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/kernel/conntrack"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// hold answers TCP connections at port 9090 with the host's name and keeps them. What ends them comes out of the channel.
func (h host) hold(addr string) chan error {
	ends := make(chan error, 100)
	h.do(func() {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, "9090"))
		h.must(err)
		h.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, h.name+"\n")
				go func() {
					if _, err := io.Copy(c, c); err != nil {
						ends <- err
					}
					_ = c.Close()
				}()
			}
		}()
	})
	return ends
}

// A stream is a long-lived connection.
type stream struct {
	host
	net.Conn
	server string // who has the other end
}

// stream connects, again until the server is one of want, if that is given.
func (h host) stream(to string, port int, want ...string) stream {
	h.Helper()
	for range 100 {
		s := stream{host: h}
		h.do(func() {
			d := net.Dialer{Timeout: patience, KeepAlive: -1}
			var err error
			s.Conn, err = d.Dial("tcp", net.JoinHostPort(to, fmt.Sprint(port)))
			h.must(err)
		})
		h.Cleanup(func() { _ = s.Close() })
		s.server = s.reads()
		if len(want) == 0 || slices.Contains(want, s.server) {
			return s
		}
		_ = s.Close()
	}
	h.Fatalf("%s to %s %d never comes to %v", h.name, to, port, want)
	return stream{}
}

func (s stream) reads() string {
	s.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	n, err := s.Read(buf)
	if err != nil {
		s.Errorf("%s reads from %s: %v", s.name, s.RemoteAddr(), err)
	}
	return strings.TrimSpace(string(buf[:n]))
}

// goesOn wants what is sent to come back.
func (s stream) goesOn() {
	s.Helper()
	_, err := s.Write([]byte("more\n"))
	if got := s.reads(); got != "more" || err != nil {
		s.Errorf("%s to %s (%s): %q, %v", s.name, s.RemoteAddr(), s.server, got, err)
	}
}

// ends waits for a reset, without sending.
func (s stream) ends() {
	s.Helper()
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	start := time.Now()
	if n, err := s.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNRESET) {
		s.Fatalf("%s waits for %s (%s): %d bytes, %v; want a reset", s.name, s.RemoteAddr(), s.server, n, err)
	}
	s.Logf("%s to %s (%s): reset after %v", s.name, s.RemoteAddr(), s.server, time.Since(start))
}

// tcp is the state with these endpoints of a TCP Service that resets connections, and those that it keeps.
func (d *datapath) tcp(keep []string, endpoints ...string) proxy.State {
	s, _ := proxy.Build(snapshot(d.at), "one", proxy.DefaultSettings())
	list := func(addrs []string) (out []netip.AddrPort) {
		for _, a := range addrs {
			out = append(out, netip.AddrPortFrom(netip.MustParseAddr(a), 9090))
		}
		slices.SortFunc(out, netip.AddrPort.Compare)
		return out
	}
	for f, owner := range s.Owners {
		if owner == serviceKey(clusterPolicy) {
			s.Frontends[f] = proxy.Backends{Outside: list(endpoints), Inside: list(endpoints), Keep: list(keep), Reset: true}
		}
	}
	return s
}

// TestReset has clients wait for an answer while their endpoint goes.
func TestReset(t *testing.T) {
	testenv.Root(t)
	for name, at := range map[string]addresses{"IPv4": four, "IPv6": six} {
		t.Run(name, func(t *testing.T) { resets(t, at) })
	}
}

func resets(t *testing.T, at addresses) {
	n := build(t, at)
	d := newDatapath(t, n, at)
	serverEnds := map[string]chan error{"a": n.a.hold(at.a), "b": n.b.hold(at.b), "remote": n.remote.hold(at.remote)}
	vip, ip, nodePort := fmt.Sprintf(at.vip, clusterPolicy), fmt.Sprintf(at.service, clusterPolicy), 30080+clusterPolicy
	// From outside, from the node itself, and from a pod, to each of two endpoints.
	connect := func(to ...string) (out []stream) {
		for _, server := range to {
			out = append(out, n.client.stream(vip, 80, server), n.client.stream(at.node, nodePort, server),
				n.node.stream(ip, 80, server), n.b.stream(ip, 80, server))
		}
		return out
	}
	end := func(t *testing.T, streams []stream, servers int) {
		t.Helper()
		for _, s := range streams {
			s.T = t
			s.ends()
		}
		// The endpoints, which are there still, learn of it too.
		for range servers {
			select {
			case err := <-serverEnds[streams[0].server]:
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the server's connection ends with %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the server waits for ever")
			}
		}
	}
	d.set(d.tcp(nil, at.a, at.remote))
	direct := n.client.stream(at.a, 9090)
	kept, gone := connect("remote"), connect("a")
	t.Run("it terminates", func(t *testing.T) {
		d.set(d.tcp([]string{at.a}, at.remote))
		for _, s := range append(gone, kept...) {
			s.T = t
			s.goesOn()
		}
	})
	t.Run("it is gone", func(t *testing.T) {
		d.set(d.tcp(nil, at.remote))
		end(t, gone, len(gone))
		for _, s := range append(kept, direct) {
			s.T = t
			s.goesOn()
		}
		gone[0].eventually("they are counted", func() bool { return int(d.count("hythe_conntrack_reset_connections_total")) == len(gone) })
	})
	t.Run("its address and port are used again", func(t *testing.T) {
		from := gone[0].LocalAddr().(*net.TCPAddr)
		n.client.do(func() {
			dialer := net.Dialer{Timeout: patience, LocalAddr: from}
			c, err := dialer.Dial("tcp", net.JoinHostPort(vip, "80"))
			if err != nil {
				t.Fatal(err)
			}
			s := stream{host: n.client, Conn: c}
			s.T = t
			s.server = s.reads()
			s.goesOn()
			_ = c.Close()
		})
	})
	t.Run("the last one is gone", func(t *testing.T) {
		d.set(d.tcp(nil))
		end(t, kept, len(kept))
	})
	t.Run("missed while the agent was away", func(t *testing.T) {
		d.set(d.tcp(nil, at.a))
		gone := connect("a")
		d.stop()
		set1(t, d.table, d.tcp(nil, at.remote))
		d.start()
		d.flows.Set(d.tcp(nil, at.remote), true)
		end(t, gone, len(gone))
	})
	t.Run("the targetPort changes", func(t *testing.T) {
		d.set(d.tcp(nil, at.a, at.remote))
		stays, gone := connect("a"), connect("remote")
		moved := d.tcp(nil, at.a)
		for f, b := range moved.Frontends {
			if b.Reset {
				b.Outside = endpoints(at.a, 1) // port 8080
				b.Inside = b.Outside
				moved.Frontends[f] = b
			}
		}
		d.set(moved)
		end(t, gone, len(gone))
		for _, s := range stays {
			s.T = t
			s.goesOn()
		}
		n.client.answers("tcp", vip, 80, map[string]string{"a": at.client}) // new ones come to the new port
		d.set(d.tcp(nil, at.remote))                                        // a goes, which these ports had at last
		end(t, stays, len(stays))
	})
	t.Run("the agent starts after the targetPort changed", func(t *testing.T) {
		moved := func(s proxy.State, datagramsTo string) proxy.State {
			for f, b := range s.Frontends {
				if b.Reset {
					b.Outside = endpoints(at.a, 1) // port 8080
					b.Inside = b.Outside
					s.Frontends[f] = b
				}
			}
			for f, b := range d.udp(80, datagramsTo).Frontends {
				if f.Protocol == proxy.UDP {
					s.Frontends[f] = b
				}
			}
			return s
		}
		d.set(d.tcp(nil, at.a))
		stays := connect("a")
		d.set(moved(d.tcp(nil), at.a))
		marker := n.client.sender(fmt.Sprintf(at.vip, datagrams), 80)
		marker.comesTo("a")
		d.stop()
		set1(t, d.table, moved(d.tcp(nil), at.remote))
		d.start()
		d.flows.Set(moved(d.tcp(nil), at.remote), true)
		marker.comesTo("remote") // flows were looked at
		for _, s := range stays {
			s.T = t
			s.goesOn()
		}
		d.set(d.tcp(nil, at.remote))
		end(t, stays, len(stays))
	})
	t.Run("the VIP goes", func(t *testing.T) {
		d.set(d.tcp(nil, at.a, at.remote))
		stays, gone := connect("a"), connect("remote")
		without := d.tcp(nil, at.a)
		delete(without.Frontends, proxy.Frontend{Addr: netip.MustParseAddr(vip), Protocol: proxy.TCP, Port: 80})
		d.set(without)
		end(t, gone, len(gone))
		for _, s := range stays {
			s.T = t
			s.goesOn()
		}
		without = d.tcp(nil)
		delete(without.Frontends, proxy.Frontend{Addr: netip.MustParseAddr(vip), Protocol: proxy.TCP, Port: 80})
		d.set(without)
		end(t, stays, len(stays))
	})
	t.Run("the Service is deleted", func(t *testing.T) {
		d.set(d.tcp(nil, at.a, at.remote))
		gone := connect("remote")
		without := d.tcp(nil)
		for f, owner := range without.Owners {
			if owner == serviceKey(clusterPolicy) {
				delete(without.Frontends, f)
				delete(without.Addresses, f.Addr)
			}
		}
		d.set(without)
		end(t, gone, len(gone))
	})
	t.Run("without the option", func(t *testing.T) {
		plain := func(endpoint string) proxy.State {
			s := d.tcp(nil, endpoint)
			for f, b := range s.Frontends {
				b.Reset = false
				s.Frontends[f] = b
			}
			return s
		}
		d.set(plain(at.a))
		stays := connect("a")
		d.set(plain(at.remote))
		marker := n.client.sender(fmt.Sprintf(at.vip, datagrams), 80) // flows are looked at
		d.set(d.udp(80))
		marker.comesTo("refused")
		for _, s := range stays {
			s.T = t
			s.goesOn()
		}
	})
	if n.node.dropped1()["endpoint-gone"] == 0 {
		t.Error("what is reset is not counted")
	}
}

// TestResetWhenItSends: where nothing can make the client send, as behind a firewall, it is reset when it does.
func TestResetWhenItSends(t *testing.T) {
	testenv.Root(t)
	for _, loose := range []string{"0", "1"} {
		t.Run("nf_conntrack_tcp_loose="+loose, func(t *testing.T) {
			at := four
			n := build(t, at)
			n.node.sysctl("netfilter/nf_conntrack_tcp_loose", loose)
			d := newDatapath(t, n, at)
			n.a.hold(at.a)
			n.remote.hold(at.remote)
			d.set(d.tcp(nil, at.a))
			s := n.client.stream(fmt.Sprintf(at.vip, clusterPolicy), 80)
			// The client hears nothing that it did not ask for.
			needNft(t)
			n.client.do(func() {
				err := nftTool(t, "table ip deaf { chain in { type filter hook input priority 0; tcp flags & (ack|rst) == ack drop; }; }")
				if err != nil {
					t.Fatal(err)
				}
			})
			d.set(d.tcp(nil, at.remote))
			s.eventually("its entry goes", func() bool { return d.count("hythe_conntrack_reset_connections_total") == 1 })
			_ = s.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := s.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) {
				t.Error("the firewall does not work")
			}
			if _, err := s.Write([]byte("hello\n")); err != nil {
				t.Fatal(err)
			}
			s.ends()
		})
	}
}

// TestEndTooMany: the kernel remembers so many connections to reset and no more, and the table is none the worse.
func TestEndTooMany(t *testing.T) {
	testenv.NetNS(t)
	table := testTable(t)
	set1(t, table, services(3))
	tuple := func(i int) conntrack.Tuple {
		return conntrack.Tuple{Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 5000),
			Dst: netip.MustParseAddrPort("10.96.0.1:80")}
	}
	var many []conntrack.Tuple
	for i := range ruleset.MaxEnded {
		many = append(many, tuple(i))
	}
	if err := table.End(many); err != nil {
		t.Fatal(err)
	}
	if err := table.End([]conntrack.Tuple{tuple(1)}); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := table.End([]conntrack.Tuple{tuple(ruleset.MaxEnded)}); !errors.Is(err, unix.ENFILE) {
		t.Errorf("one too many: %v", err)
	}
	set1(t, table, services(4))
	check(t, services(4))
}
