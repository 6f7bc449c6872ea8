package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

func localAddr(r *http.Request) netip.Addr {
	a, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return addrOf(a)
}

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// maxConns is how many connections one port has at a time: balancers ask now and then, and anybody else may too.
const maxConns = 256

// A listener is an open port.
type listener struct {
	net.Listener
	server *http.Server
	of     *Server
	slots  chan struct{}
	ended  atomic.Bool
}

func listen(ctx context.Context, address string, of *Server, handler http.Handler) (*listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	const patience = 5 * time.Second
	return &listener{Listener: l, of: of, slots: make(chan struct{}, maxConns), server: &http.Server{
		Handler: handler, ReadTimeout: patience, WriteTimeout: patience, IdleTimeout: 2 * patience, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(of.log.Handler(), slog.LevelDebug),
	}}, nil
}

// serve returns when the listener is closed, or broken.
func (l *listener) serve() {
	defer l.ended.Store(true)
	if err := l.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		l.of.log.Warn("a port for health checks is served no more", "address", l.Addr(), "error", err)
	}
}

func (l *listener) close() {
	if l != nil {
		_ = l.server.Close()
	}
}

// Accept implements net.Listener. It closes connections to addresses of the node that are not asked, and those too many.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.of.mu.Lock()
		at := l.of.state.at(addrOf(c.LocalAddr()))
		l.of.mu.Unlock()
		if !at {
			_ = c.Close()
			continue
		}
		select {
		case l.slots <- struct{}{}:
			return &conn{Conn: c, done: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			_ = c.Close()
		}
	}
}

// A conn gives its slot back when it is closed.
type conn struct {
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
