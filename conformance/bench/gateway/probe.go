package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// probeEvery is how often a new host is asked.
const probeEvery = 2 * time.Millisecond

// A seen is what a new host answered, each time other than the time before.
type seen struct {
	at   time.Duration // since the probe began
	what string
}

// probe asks a host over one HTTP/1.1 connection until it answers 200, and then for a while longer, in which it may answer nothing
// else. It returns when the first 200 came. gap says what came between 404 and 200.
func probe(ctx context.Context, host string, after time.Duration) (first time.Time, gap error) {
	var all []seen
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := dial(ctx, httpPort)
	if err != nil {
		return first, err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	begin := time.Now()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for first.IsZero() || time.Since(first) < after {
		select {
		case <-ctx.Done():
			return first, errors.Join(errors.New("it never answered 200"), gap)
		case <-tick.C:
		}
		what := ""
		_ = conn.SetDeadline(time.Now().Add(requestTimeout))
		r := request(ctx, "http", host, false, "probe-"+host)
		err := r.Write(conn)
		if err == nil {
			var response *http.Response
			if response, err = http.ReadResponse(reader, r); err == nil {
				what = fmt.Sprint(response.StatusCode)
				_ = judge(response)
			}
		}
		if err != nil {
			return first, fmt.Errorf("probe %s: %w", host, err)
		}
		if len(all) == 0 || all[len(all)-1].what != what {
			all = append(all, seen{time.Since(begin), what})
		}
		if what == "200" && first.IsZero() {
			first = time.Now()
		}
		if what != "200" && (what != "404" || !first.IsZero()) {
			gap = fmt.Errorf("host %s answers %s: %v", host, what, all)
		}
	}
	return first, gap
}

// probeTLS asks a new host with a certificate of its own, each time on a new connection, until it answers 200 with that certificate. Before
// that it may answer 404, with whatever certificate. A connection that was opened before the host was there is told 421 if its
// request comes after: then it asks again on another one, as RFC 9110 section 15.5.20 says, which must get an answer. redone counts these.
func (l *load) probeTLS(ctx context.Context, host string, after time.Duration) (redone int, first time.Time, gap error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	begin := time.Now()
	tick := time.NewTicker(5 * probeEvery)
	defer tick.Stop()
	var all []seen
	for first.IsZero() || time.Since(first) < after {
		select {
		case <-ctx.Done():
			return redone, first, errors.Join(fmt.Errorf("host %s never answered 200: %v", host, all), gap)
		case <-tick.C:
		}
		what := l.askTLS(ctx, host)
		if what == "421 with another certificate" && first.IsZero() {
			redone++
			what = l.askTLS(ctx, host)
		}
		if len(all) == 0 || all[len(all)-1].what != what {
			all = append(all, seen{time.Since(begin), what})
		}
		if what == "200" && first.IsZero() {
			first = time.Now()
		}
		if what != "200" && (!strings.HasPrefix(what, "404") || !first.IsZero()) {
			gap = fmt.Errorf("host %s answers %s: %v", host, what, all)
		}
	}
	return redone, first, gap
}

// askTLS asks once, on a connection of its own.
func (l *load) askTLS(ctx context.Context, host string) string {
	conn, err := dial(ctx, httpsPort)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(requestTimeout))
	config := l.tls(host, "http/1.1")
	config.InsecureSkipVerify = true //nolint:gosec // which certificate is shown is looked at
	other := ""
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if _, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: l.authority.pool, DNSName: host}); err != nil {
			other = " with another certificate"
		}
		return nil
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return "handshake: " + err.Error()
	}
	r := request(ctx, "https", host, false, "probe-"+host)
	if err := r.Write(secure); err != nil {
		return "send: " + err.Error()
	}
	response, err := http.ReadResponse(bufio.NewReader(secure), r)
	if err != nil {
		return "answer: " + err.Error()
	}
	_ = judge(response)
	return fmt.Sprint(response.StatusCode) + other
}
