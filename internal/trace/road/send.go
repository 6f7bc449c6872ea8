package road

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/trace/asked"
)

const (
	// sendWait bounds each step of a marked request.
	sendWait = 5 * time.Second
	// noteWait is how long Envoy may take to tell of it: it sends its log every 100 ms, and is busy at times.
	noteWait = 4 * time.Second
)

// MarkHeader marks a request, see xds.TraceHeader.
const MarkHeader = "X-Hythe-Trace"

// A Client sends marked requests.
type Client struct {
	// Where is the machine's name.
	Where string
	// Dial connects to ADDRESS:PORT from there.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots are whom it trusts, nil for the system's.
	Roots *x509.CertPool
	// NextHop says whom its packets to an address are handed to; nil if that cannot be known.
	NextHop func(to netip.Addr) string
}

// Live sends a marked request along the road of t, and asks the processes where it was seen. to is where t leads.
func Live(ctx context.Context, c *inspect.Cluster, q asked.Question, to netip.AddrPort, client Client) asked.LiveEvidence {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails, see crypto/rand
	id := hex.EncodeToString(raw[:])
	gateways := c.Component("gateway")
	if q.Kind != asked.KindURL {
		gateways = nil
	}
	query := url.Values{"id": {id}}
	askEnvoys := func() []asked.Answer[[]inspect.LiveAnswer] {
		out := make([]asked.Answer[[]inspect.LiveAnswer], len(gateways))
		each(gateways, func(i int, p *inspect.Process) {
			out[i] = ask[[]inspect.LiveAnswer](ctx, p, p.Node, "live", query)
		})
		return out
	}
	askEnvoys() // so that they keep it
	s := sender{client: client, sent: asked.Sent{ID: id, Where: client.Where, To: to}}
	closeAll := s.send(ctx, q)
	defer closeAll()
	ev := asked.LiveEvidence{Sent: s.sent}
	seenFrom := s.sent.Local
	if q.Kind == asked.KindURL && s.sent.Failed == "" {
		ev.Envoys = awaitEntry(ctx, askEnvoys)
		if e, ok := ev.Entry(); ok {
			if a, err := netip.ParseAddrPort(e.Got.Client); err == nil {
				seenFrom = a
			}
			ev.Upstream = askFlows(ctx, c, e.Got.Local, e.Got.Upstream)
		}
	}
	ev.Client = askFlows(ctx, c, seenFrom.String(), to.String())
	if _, ok := asked.Translated(ev.Client); !ok && seenFrom != s.sent.Local {
		ev.Client = askFlows(ctx, c, s.sent.Local.String(), to.String()) // it was masqueraded on the way
	}
	if f, ok := asked.Translated(ev.Client); ok {
		ev.Onward = askFlows(ctx, c, f.Back.String(), f.Answers.String())
	}
	return ev
}

// awaitEntry asks until an Envoy has noted the request.
func awaitEntry(ctx context.Context, ask func() []asked.Answer[[]inspect.LiveAnswer]) []asked.Answer[[]inspect.LiveAnswer] {
	for deadline := time.Now().Add(noteWait); ; {
		out := ask()
		if _, ok := (asked.LiveEvidence{Envoys: out}).Entry(); ok || time.Now().After(deadline) {
			return out
		}
		select {
		case <-ctx.Done():
			return out
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// askFlows asks all nodes for a connection.
func askFlows(ctx context.Context, c *inspect.Cluster, from, to string) []asked.Answer[asked.FlowAnswer] {
	if from == "" || to == "" {
		return nil
	}
	nodes := c.Component("node")
	out := make([]asked.Answer[asked.FlowAnswer], len(nodes))
	query := url.Values{"from": {from}, "to": {to}, "protocol": {"tcp"}}
	each(nodes, func(i int, p *inspect.Process) { out[i] = ask[asked.FlowAnswer](ctx, p, p.Node, asked.AskFlow, query) })
	return out
}

// A sender sends one request and notes how it goes.
type sender struct {
	client Client
	sent   asked.Sent
}

// send connects and, for a URL, asks. The returned function closes the connection: until then the kernel knows it.
func (s *sender) send(ctx context.Context, q asked.Question) func() {
	ctx, cancel := context.WithTimeout(ctx, sendWait)
	defer cancel()
	started := time.Now()
	conn, err := s.client.Dial(ctx, "tcp", s.sent.To.String())
	s.sent.Connect = time.Since(started)
	if s.client.NextHop != nil {
		s.sent.NextHop = s.client.NextHop(s.sent.To.Addr())
	}
	if err != nil {
		s.fail("connect", err)
		return func() {}
	}
	s.sent.Local, _ = netip.ParseAddrPort(conn.LocalAddr().String())
	if q.Kind == asked.KindURL {
		_ = conn.SetDeadline(time.Now().Add(sendWait))
		s.request(ctx, conn, q.Request)
	}
	return func() { conn.Close() }
}

func (s *sender) fail(step string, err error) {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // the addresses are said already
	}
	s.sent.Failed, s.sent.Error = step, err.Error()
}

// request speaks TLS if the URL says so, and asks.
func (s *sender) request(ctx context.Context, conn net.Conn, r asked.Request) {
	if r.Scheme == "https" {
		started := time.Now()
		// The certificate is checked below: one that is refused is an answer, not the end.
		secured := tls.Client(conn, &tls.Config{ServerName: r.Host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		err := secured.HandshakeContext(ctx)
		s.sent.Handshake = time.Since(started)
		if err != nil {
			s.fail("handshake", err)
			return
		}
		s.judge(secured.ConnectionState().PeerCertificates, r.Host)
		conn = secured
	}
	started := time.Now()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: one(conn), DialTLSContext: one(conn)}
	u := r.Scheme + "://" + net.JoinHostPort(r.Host, fmt.Sprint(r.Port)) + r.Path
	req, err := http.NewRequestWithContext(ctx, r.Method, u, nil)
	if err != nil {
		s.fail("request", err)
		return
	}
	if r.Port == 80 && r.Scheme == "http" || r.Port == 443 && r.Scheme == "https" {
		req.Host = r.Host
	}
	req.Header.Set(MarkHeader, s.sent.ID)
	req.Header.Set("User-Agent", "hythe-trace")
	resp, err := transport.RoundTrip(req)
	s.sent.Answer = time.Since(started)
	if err != nil {
		s.fail("request", err)
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	_ = resp.Body.Close()
	s.sent.Status = resp.Status
}

func one(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}

// judge says which certificate was shown, and whether a client would take it.
func (s *sender) judge(chain []*x509.Certificate, host string) {
	if len(chain) == 0 {
		return
	}
	leaf := chain[0]
	s.sent.Certificate = fmt.Sprintf("%s by %s until %s", leaf.Subject.CommonName, leaf.Issuer.CommonName, leaf.NotAfter.Format(time.DateOnly))
	if len(leaf.DNSNames) > 0 {
		s.sent.Certificate = fmt.Sprintf("for %v by %s until %s", leaf.DNSNames, leaf.Issuer.CommonName, leaf.NotAfter.Format(time.DateOnly))
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: s.client.Roots, Intermediates: between}); err != nil {
		s.sent.Untrusted = err.Error()
	}
}
