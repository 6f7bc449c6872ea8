package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// requestTimeout is how long a request may take: more would be a lost one.
const requestTimeout = 15 * time.Second

// A loss is a request that was not answered with 200, or a connection that was cut.
type loss struct {
	at     time.Time
	id     string // in the request's path
	what   string // protocol and method
	reason string
}

// A load is what clients did.
type load struct {
	authority *authority
	limit     *rate.Limiter

	mu       sync.Mutex
	requests map[string]int // by protocol
	closed   map[string]int // connections that were ended as HTTP says they may be
	lost     []loss
	slowest  time.Duration
	times    []float64 // ms
}

// A client asks over connections of its own, and never asks twice.
type client interface {
	// ask returns an error for whatever is no answer 200. polite says that the connection is to be ended after it.
	ask(ctx context.Context, post bool, id string) (polite bool, err error)
	close()
}

// run asks by a client until ctx is done. After fresh requests it connects anew; never if that is 0.
func (l *load) run(ctx context.Context, name string, fresh int, connect func(context.Context) (client, error)) {
	var c client
	asked := 0
	for n := 0; l.limit.Wait(ctx) == nil; n++ {
		post := n%2 == 1
		id := fmt.Sprintf("%s-%p-%d", name, &asked, n)
		begin := time.Now()
		polite, err := l.once(post, id, &c, connect)
		l.count(name, post, id, begin, polite, err)
		asked++
		if c != nil && (err != nil || polite || fresh > 0 && asked >= fresh) {
			c.close()
			c, asked = nil, 0
		}
	}
	if c != nil {
		c.close()
	}
}

// once connects if need be and asks. It is not ended with the load: each request that was begun gets its answer.
func (l *load) once(post bool, id string, c *client, connect func(context.Context) (client, error)) (polite bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if *c == nil {
		if *c, err = connect(ctx); err != nil {
			*c = nil
			return false, fmt.Errorf("connect: %w", err)
		}
	}
	return (*c).ask(ctx, post, id)
}

func (l *load) count(name string, post bool, id string, begin time.Time, polite bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests[name]++
	took := time.Since(begin)
	l.slowest = max(l.slowest, took)
	l.times = append(l.times, float64(took.Microseconds())/1000)
	if polite {
		l.closed[name]++
	}
	if err != nil {
		method := "GET"
		if post {
			method = "POST"
		}
		l.lost = append(l.lost, loss{at: time.Now(), id: id, what: name + " " + method, reason: err.Error()})
	}
}

// tls is what a client of a host trusts.
func (l *load) tls(host string, protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: l.authority.pool, ServerName: host, NextProtos: protocols}
}

func request(ctx context.Context, scheme, host string, post bool, id string) *http.Request {
	method, body := http.MethodGet, io.Reader(nil)
	if post {
		method, body = http.MethodPost, bytes.NewReader(bytes.Repeat([]byte("x"), 300))
	}
	r, err := http.NewRequestWithContext(ctx, method, scheme+"://"+host+"/"+id, body)
	if err != nil {
		panic(err) // it is made of constants
	}
	return r
}

// judge says what is wrong with an answer, and reads it.
func judge(response *http.Response) error {
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%d: %.120s", response.StatusCode, strings.TrimSpace(string(body)))
	}
	if err != nil {
		return fmt.Errorf("body of an answer 200: %w", err)
	}
	return nil
}

// one is a client of HTTP/1.1 with one connection. It is written by hand since net/http asks again without a word.
type one struct {
	host, scheme string
	conn         net.Conn
	reader       *bufio.Reader
}

func (l *load) http1(host string, encrypted bool) func(context.Context) (client, error) {
	return func(ctx context.Context) (client, error) {
		if !encrypted {
			conn, err := dial(ctx, httpPort)
			if err != nil {
				return nil, err
			}
			return &one{host, "http", conn, bufio.NewReader(conn)}, nil
		}
		conn, err := dial(ctx, httpsPort)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(conn, l.tls(host, "http/1.1"))
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		return &one{host, "https", secure, bufio.NewReader(secure)}, nil
	}
}

func (o *one) ask(ctx context.Context, post bool, id string) (bool, error) {
	deadline, _ := ctx.Deadline()
	_ = o.conn.SetDeadline(deadline)
	r := request(ctx, o.scheme, o.host, post, id)
	if err := r.Write(o.conn); err != nil {
		return false, fmt.Errorf("send: %w", err)
	}
	response, err := http.ReadResponse(o.reader, r)
	if err != nil {
		return false, fmt.Errorf("read answer: %w", err)
	}
	return response.Close, judge(response)
}

func (o *one) close() { o.conn.Close() }

// two is a client of HTTP/2 with one connection.
type two struct {
	host string
	conn *http2.ClientConn //nolint:staticcheck // net/http's own tells of no GOAWAY
}

func (l *load) http2(host string) func(context.Context) (client, error) {
	return func(ctx context.Context) (client, error) {
		conn, err := dial(ctx, httpsPort)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(conn, l.tls(host, "h2"))
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("handshake: %w", err)
		}
		if got := secure.ConnectionState().NegotiatedProtocol; got != "h2" {
			conn.Close()
			return nil, fmt.Errorf("the protocol is %q", got)
		}
		c, err := (&http2.Transport{}).NewClientConn(secure) //nolint:staticcheck // as above
		if err != nil {
			conn.Close()
			return nil, err
		}
		return &two{host, c}, nil
	}
}

func (t *two) ask(ctx context.Context, post bool, id string) (bool, error) {
	response, err := t.conn.RoundTrip(request(ctx, "https", t.host, post, id))
	if err != nil {
		return false, fmt.Errorf("HTTP/2: %w", err)
	}
	err = judge(response)
	return !t.conn.CanTakeNewRequest(), err // GOAWAY came, in good order
}

func (t *two) close() { t.conn.Close() }

// remote is a client of gRPC. A call that no server has seen may be sent again by gRPC, as its own rules say.
type remote struct{ conn *grpc.ClientConn }

func (l *load) grpc(host string) func(context.Context) (client, error) {
	return func(context.Context) (client, error) {
		conn, err := grpc.NewClient("passthrough:///"+host, grpc.WithDisableRetry(), grpc.WithTransportCredentials(credentials.NewTLS(l.tls(host))),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, httpsPort) }))
		if err != nil {
			return nil, err
		}
		return &remote{conn}, nil
	}
}

func (r *remote) ask(ctx context.Context, _ bool, _ string) (bool, error) {
	answer, err := healthv1.NewHealthClient(r.conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err == nil && answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		err = errors.New("not serving")
	}
	return false, err
}

func (r *remote) close() { r.conn.Close() }
