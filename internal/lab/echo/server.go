package echo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// A Server says who it is.
type Server struct {
	Pod       string `json:"pod"`
	Namespace string `json:"namespace"`
	Node      string `json:"node"`
	Container string `json:"container"`
	// Version is the tag of the container's image.
	Version string `json:"version"`
	// TCP and UDP are the ports to listen on, on all addresses.
	TCP []uint16 `json:"-"`
	UDP []uint16 `json:"-"`
	// Grace bounds how long requests in flight may take after the end.
	Grace time.Duration `json:"-"`
}

// An Answer is what a request is answered with.
type Answer struct {
	Server
	Method   string      `json:"method"`
	Host     string      `json:"host"`
	Path     string      `json:"path"` // with the query
	Protocol string      `json:"protocol"`
	Remote   string      `json:"remote"` // the caller's address and port
	Local    string      `json:"local"`  // the address and port that was connected to
	Headers  http.Header `json:"headers"`
}

const (
	maxSleep = time.Minute
	maxFetch = 1 << 20
)

// Run serves until ctx is done and all requests in flight are answered.
func (s Server) Run(ctx context.Context) error {
	var servers []*http.Server
	failed := make(chan error, len(s.TCP)+len(s.UDP))
	for _, port := range s.TCP {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		server := s.http()
		servers = append(servers, server)
		go func() { failed <- server.Serve(l) }()
	}
	for _, port := range s.UDP {
		c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
		go func() { failed <- s.serveUDP(ctx, c) }()
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Grace)
	defer cancel()
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Shutdown(grace))
	}
	return errors.Join(errs...)
}

func (s Server) http() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{Handler: s, Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second}
}

// ServeHTTP answers one request.
func (s Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if d, err := time.ParseDuration(query.Get("sleep")); err == nil {
		select {
		case <-time.After(min(d, maxSleep)):
		case <-r.Context().Done():
			return
		}
	}
	if target := query.Get("fetch"); target != "" {
		fetch(w, r, target)
		return
	}
	// A small body is read to its end, so that the connection can be used again.
	_, _ = io.CopyN(io.Discard, r.Body, maxFetch)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	answer := Answer{
		Server: s, Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Protocol: r.Proto,
		Remote: plain(r.RemoteAddr), Local: plain(local.String()), Headers: r.Header,
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status(query.Get("status")))
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(answer)
}

// plain writes an IPv4 address that came in by an IPv6 socket as IPv4.
func plain(addrPort string) string {
	ap, err := netip.ParseAddrPort(addrPort)
	if err != nil {
		return addrPort
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}

func status(text string) int {
	if n, err := strconv.Atoi(text); err == nil && n >= 200 && n <= 599 {
		return n
	}
	return http.StatusOK
}

// fetch hands on what a loopback address of the pod answers.
func fetch(w http.ResponseWriter, r *http.Request, target string) {
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "http" || !loopback(u.Hostname()) {
		http.Error(w, "fetch: want a http URL of localhost", http.StatusBadRequest)
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	_, _ = io.CopyN(w, resp.Body, maxFetch)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func (s Server) serveUDP(ctx context.Context, c net.PacketConn) error {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		_, _ = c.WriteTo(append([]byte(s.Pod+" "), buf[:n]...), from)
	}
}
