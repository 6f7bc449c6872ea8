package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"hythe.dev/hythe/internal/lab/echo"
	"hythe.dev/hythe/internal/lab/topology"
)

const (
	askTimeout = 3 * time.Second
	// getTimeout is longer than Envoy takes to give up an endpoint.
	getTimeout = 15 * time.Second
)

// An answer is what came back.
type answer struct {
	status   int
	location string
	took     time.Duration
	// names are those of the certificate, if TLS was spoken; verified says whether it was checked against the lab's CA.
	names    []string
	verified bool
	// echo is what the pod said; its Pod is empty when something else answered.
	echo echo.Answer
}

// who is "web-1 on node2".
func (a *answer) who() string {
	if a.echo.Pod == "" {
		return "Envoy itself"
	}
	return fmt.Sprintf("%s on %s", a.echo.Pod, a.echo.Node)
}

// get asks rawURL of the server at to, from a namespace, on a connection of its own. Redirects are not followed.
func get(ctx context.Context, ns, rawURL string, to netip.AddrPort, roots *x509.CertPool) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{RootCAs: roots, InsecureSkipVerify: roots == nil},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return topology.Dial(ctx, ns, "tcp", to.String())
		},
	}
	defer transport.CloseIdleConnections()
	scheme, rest, _ := strings.Cut(rawURL, "://")
	host, path, _ := strings.Cut(rest, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host, nil)
	if err != nil {
		return nil, err
	}
	// The path goes out as it is written, as it does from curl.
	req.URL.Opaque = "/" + path
	started := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	a := &answer{status: resp.StatusCode, location: resp.Header.Get("Location"), took: time.Since(started)}
	if resp.TLS != nil {
		a.names, a.verified = resp.TLS.PeerCertificates[0].DNSNames, roots != nil
	}
	// Not every answer is a pod's.
	_ = json.Unmarshal(body, &a.echo)
	return a, nil
}

// getPlain asks a pod, Service or NodePort over plain HTTP and wants 200 from a pod.
func getPlain(ctx context.Context, ns string, to netip.AddrPort) (*answer, error) {
	a, err := get(ctx, ns, (&url.URL{Scheme: "http", Host: to.String(), Path: "/"}).String(), to, nil)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK || a.echo.Pod == "" {
		return nil, fmt.Errorf("status %d from %s, want 200 from a pod", a.status, a.who())
	}
	return a, nil
}

// readRoots reads the CA that the lab's certificates are signed with.
func readRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA %s: no certificate in it", path)
	}
	return roots, nil
}

// ping sends one ICMP echo request (RFC 792) and returns the time to its answer.
func ping(ns string, to netip.Addr, sequence uint16) (time.Duration, error) {
	var c net.PacketConn
	err := topology.Do(ns, func() (err error) {
		c, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	const id = 0x4879
	request := []byte{8, 0, 0, 0, id >> 8, id & 0xff, byte(sequence >> 8), byte(sequence), 'h', 'y', 't', 'h', 'e', '!'}
	binary.BigEndian.PutUint16(request[2:], internetChecksum(request))
	started := time.Now()
	if _, err := c.WriteTo(request, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(started.Add(time.Second)); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return 0, errors.New("no answer within 1 s")
		}
		isReply := n >= 8 && buf[0] == 0 && binary.BigEndian.Uint16(buf[4:]) == id && binary.BigEndian.Uint16(buf[6:]) == sequence
		if isReply && from.String() == to.String() {
			return time.Since(started), nil
		}
	}
}

// internetChecksum is that of RFC 1071; len(data) is even.
func internetChecksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}

// refusal connects to a closed port and returns the time until it was refused.
func refusal(ctx context.Context, ns string, to netip.AddrPort) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	started := time.Now()
	c, err := topology.Dial(ctx, ns, "tcp", to.String())
	took := time.Since(started)
	switch {
	case err == nil:
		_ = c.Close()
		return 0, errors.New("it is open")
	case !errors.Is(err, syscall.ECONNREFUSED):
		return 0, err
	}
	return took, nil
}
