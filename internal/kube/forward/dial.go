package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// A Dialer connects to ports of one pod, by one connection to the API server that is made at the first Dial, and again
// after it broke. It is safe for use by several goroutines.
type Dialer struct {
	pod    Pod
	dialer httpstream.Dialer

	mu   sync.Mutex
	conn httpstream.Connection
	last int // request id of the last pair of streams
}

// Dialer makes a Dialer; it opens no connection yet.
func (a *API) Dialer(pod Pod) (*Dialer, error) {
	url := a.core.Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).
		SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(a.config)
	if err != nil {
		return nil, fmt.Errorf("connect to pod %s: %w", pod, err)
	}
	websocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, a.config)
	if err != nil {
		return nil, fmt.Errorf("connect to pod %s: %w", pod, err)
	}
	older := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	return &Dialer{pod: pod, dialer: portforward.NewFallbackDialerForStreaming(websocket, older, olderHelps)}, nil
}

// olderHelps says whether SPDY is tried after WebSocket failed: not where the API server itself said no.
func olderHelps(err error) bool {
	var status *apierrors.StatusError
	return !errors.As(err, &status) && (httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err))
}

// Dial connects to a port on the loopback interface of the pod's network.
func (d *Dialer) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	if d.pod.Waits != "" {
		return nil, errors.New(d.pod.Waits)
	}
	conn, id, err := d.connection(ctx)
	if err != nil {
		return nil, d.explain(err)
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(id))
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failed, err := conn.CreateStream(headers)
	if err != nil {
		d.drop(conn)
		return nil, fmt.Errorf("open stream to port %d: %w", port, err)
	}
	_ = failed.Close() // nothing is written to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(headers)
	if err != nil {
		d.drop(conn)
		return nil, fmt.Errorf("open stream to port %d: %w", port, err)
	}
	return newStream(conn, data, failed, port), nil
}

// connection is the one to the API server, a new one if there is none that works, and the id of a request on it.
func (d *Dialer) connection(ctx context.Context) (httpstream.Connection, int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	if d.conn != nil {
		select {
		case <-d.conn.CloseChan():
		default:
			return d.conn, d.last, nil
		}
	}
	type dialed struct {
		conn httpstream.Connection
		err  error
	}
	done := make(chan dialed, 1)
	go func() { // its Dial knows no context
		conn, _, err := d.dialer.Dial(portforward.PortForwardProtocolV1Name)
		done <- dialed{conn, err}
	}()
	select {
	case <-ctx.Done():
		go func() {
			if late := <-done; late.err == nil {
				late.conn.Close()
			}
		}()
		return nil, 0, fmt.Errorf("the API server or the kubelet does not answer: %w", ctx.Err())
	case got := <-done:
		d.conn = got.conn
		return got.conn, d.last, got.err
	}
}

func (d *Dialer) drop(conn httpstream.Connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == conn {
		d.conn = nil
	}
	conn.Close()
}

// Close ends the connection to the API server.
func (d *Dialer) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.Close()
		d.conn = nil
	}
}

// explain adds the remedy to an error of the API server.
func (d *Dialer) explain(err error) error {
	switch {
	case apierrors.IsForbidden(err), strings.Contains(err.Error(), "is forbidden"): // a proxy may lose the type
		return fmt.Errorf("%w: let this user get and create pods/portforward in namespace %s", err, d.pod.Namespace)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: it was just deleted, ask again", err)
	}
	return err
}

// A stream is a connection to a port of a pod.
type stream struct {
	httpstream.Stream // of the data
	conn              httpstream.Connection
	port              uint16
	failed            httpstream.Stream
	refusal           chan error // what the kubelet says, or that it says nothing
	closed            sync.Once
}

func newStream(conn httpstream.Connection, data, failed httpstream.Stream, port uint16) *stream {
	s := &stream{Stream: data, conn: conn, port: port, failed: failed, refusal: make(chan error, 1)}
	go func() {
		defer close(s.refusal)
		if text, err := io.ReadAll(io.LimitReader(failed, 4096)); err == nil && len(text) > 0 {
			s.refusal <- errors.New(lastWords(string(text)))
			_ = data.Reset() // who reads it learns why
		}
	}()
	return s
}

// lastWords cuts off what a container runtime tells of its own doings: containerd tries IPv4 and then IPv6.
func lastWords(text string) string {
	text = strings.TrimSpace(text)
	if _, why, ok := strings.Cut(text, "connect: "); ok {
		text, _, _ = strings.Cut(why, " IPv6")
	}
	return text
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if n == 0 && err != nil {
		select {
		case why, ok := <-s.refusal:
			if ok {
				return 0, fmt.Errorf("port %d in the pod: %w", s.port, why)
			}
		case <-time.After(100 * time.Millisecond): // it may come after the end of the data
		}
	}
	return n, err
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.closed.Do(func() {
		_ = s.Stream.Reset()
		_ = s.failed.Reset()
		s.conn.RemoveStreams(s.Stream, s.failed)
	})
	return nil
}

// Streams have no addresses and no deadlines; who asks has a context.

func (s *stream) LocalAddr() net.Addr              { return address{} }
func (s *stream) RemoteAddr() net.Addr             { return address{} }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

type address struct{}

func (address) Network() string { return "portforward" }
func (address) String() string  { return "API server" }
