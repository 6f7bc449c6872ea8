package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"

	"k8s.io/client-go/rest"
)

// Servers lets config's requests go to any of some API servers that answers, in the place of the one that it names: a node
// may have to start before anything balances between them. All must be of one cluster.
func Servers(config *rest.Config, urls []string) error {
	if len(urls) == 0 {
		return nil
	}
	var servers []*url.URL
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" {
			return fmt.Errorf("API server %q: want https://HOST:PORT", text)
		}
		servers = append(servers, u)
	}
	config.Host = urls[0]
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &anyOf{servers: servers, next: next} })
	return nil
}

// An anyOf sends requests to the server that answered last, and to the next one when it does not answer.
type anyOf struct {
	servers []*url.URL
	next    http.RoundTripper
	current atomic.Int64
}

// RoundTrip implements http.RoundTripper. A request that may have been done is not sent again: who asked for it tries
// again, and then the next server is asked.
func (a *anyOf) RoundTrip(r *http.Request) (*http.Response, error) {
	first := a.current.Load()
	var errs []error
	for i := range int64(len(a.servers)) {
		n := (first + i) % int64(len(a.servers))
		attempt, err := a.request(r, a.servers[n])
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		response, err := a.next.RoundTrip(attempt)
		if err == nil && !unavailable(response) {
			a.current.Store(n)
			return response, nil
		}
		a.current.CompareAndSwap(first, (n+1)%int64(len(a.servers)))
		if err == nil {
			return response, nil // the next request is for another server
		}
		errs = append(errs, err)
		if r.Context().Err() != nil || r.Method != http.MethodGet && !beforeSending(err) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// request is r for a server, with a body of its own.
func (a *anyOf) request(r *http.Request, server *url.URL) (*http.Request, error) {
	out := r.Clone(r.Context())
	out.URL.Host, out.Host = server.Host, server.Host
	if r.Body != nil && r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, fmt.Errorf("read body again: %w", err)
		}
		out.Body = body
	}
	return out, nil
}

// unavailable says whether a server answers that it cannot do its work: it starts or ends, or has no etcd.
func unavailable(r *http.Response) bool {
	return r.StatusCode == http.StatusBadGateway || r.StatusCode == http.StatusServiceUnavailable || r.StatusCode == http.StatusGatewayTimeout
}

// beforeSending says whether an error came before the request was sent.
func beforeSending(err error) bool {
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &certificate)
}
