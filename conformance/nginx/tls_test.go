package nginx

import (
	"crypto/tls"
	"net/http"
	"testing"

	"hythe.dev/hythe/internal/envoy/envoytest"
)

// A pair is a certificate and its key, PEM.
type pair struct{ chain, key []byte }

func newPair(t *testing.T, common string, names ...string) pair {
	chain, key := envoytest.Pair(t, common, names...)
	return pair{chain, key}
}

// config is for servers that show the pair, and ask clients for theirs.
func (p pair) config() *tls.Config {
	certificate, err := tls.X509KeyPair(p.chain, p.key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert}
}

// describeTLS says in headers what a backend saw of a TLS connection: the server name, and who the client is.
func describeTLS(req *http.Request) {
	if req.TLS == nil {
		return
	}
	req.Header.Set("Tls-Server-Name", req.TLS.ServerName)
	if len(req.TLS.PeerCertificates) > 0 {
		req.Header.Set("Tls-Client", req.TLS.PeerCertificates[0].Subject.CommonName)
	}
}
