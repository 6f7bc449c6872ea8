package authz

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	_ "golang.org/x/crypto/x509roots/fallback" // the image has no authorities

	"hythe.dev/hythe/gateway/auth"
)

// newDialer bounds connections and what is read of answers. There is no proxy, no redirect is followed, and only names that
// an administrator has granted are looked up: other addresses come from the gateway.
func newDialer() *dialer {
	transport := func() *http.Transport {
		return &http.Transport{
			DialContext:            (&net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout:    5 * time.Second,
			MaxIdleConns:           512,
			MaxIdleConnsPerHost:    64,
			MaxConnsPerHost:        256,
			IdleConnTimeout:        50 * time.Second, // before most servers close
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		}
	}
	d := &dialer{plain: transport(), encrypted: transport(), foreign: transport()}
	d.encrypted.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} // as nginx: auth.Target
	return d
}

// A dialer sends requests to addresses.
type dialer struct {
	plain, encrypted *http.Transport
	foreign          *http.Transport // to servers that are not the cluster's; their names are looked up, and verified
}

// attempts is how many of a server's pods are tried that cannot be connected to.
const attempts = 3

var errNoAddress = errors.New("it has no ready pod")

// send asks one of a target's pods, and another one if it cannot be connected to.
func (d *dialer) send(ctx context.Context, to *auth.Target, question func(address string) *http.Request) (answer, error) {
	transport := d.plain
	if to.TLS {
		transport = d.encrypted
	}
	addresses := make([]string, len(to.Addresses))
	for i, a := range to.Addresses {
		addresses[i] = a.String()
	}
	if to.Name != "" {
		transport, addresses = d.foreign, []string{to.Name}
	}
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	err := errNoAddress
	for _, a := range addresses[:min(len(addresses), attempts)] {
		var resp *http.Response
		if resp, err = transport.RoundTrip(question(a)); err == nil {
			defer resp.Body.Close()
			// A short body is read, for the connection can be used again then.
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
			return answer{resp.StatusCode, resp.Header}, nil
		}
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" || ctx.Err() != nil {
			break
		}
	}
	return answer{}, err
}
