package kubetest

import (
	"net"
	"sync"
	"testing"
)

// A Proxy stands between a client and a server, and can freeze or cut the connections.
type Proxy struct {
	tb           testing.TB
	addr, target string

	mu       sync.Mutex
	listener net.Listener // nil while refusing
	state    proxyState
	thawed   chan struct{} // closed unless frozen
	open     map[net.Conn]bool
}

type proxyState int

const (
	passing  proxyState = iota
	frozen              // nothing gets through, no connection ends
	refusing            // new connections end at once
)

// NewProxy forwards connections to target until the end of the test.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	p := &Proxy{tb: tb, addr: "127.0.0.1:0", target: target, thawed: make(chan struct{}), open: map[net.Conn]bool{}}
	close(p.thawed)
	p.mu.Lock()
	p.listen()
	p.mu.Unlock()
	tb.Cleanup(p.Refuse)
	return p
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.addr }

// Pass lets everything through.
func (p *Proxy) Pass() { p.set(passing) }

// Freeze holds all bytes of all connections, also of those to come, as a dead router does.
func (p *Proxy) Freeze() { p.set(frozen) }

// Refuse ends all connections and listens no more.
func (p *Proxy) Refuse() { p.set(refusing) }

func (p *Proxy) set(s proxyState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == frozen && s != frozen {
		close(p.thawed)
	}
	if p.state != frozen && s == frozen {
		p.thawed = make(chan struct{})
	}
	p.state = s
	if s != refusing {
		p.listen()
		return
	}
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for c := range p.open {
		c.Close()
	}
}

// listen is called with mu held.
func (p *Proxy) listen() {
	if p.listener != nil {
		return
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.tb.Errorf("proxy: %v", err)
		return
	}
	p.listener, p.addr = l, l.Addr().String()
	go p.accept(l)
}

func (p *Proxy) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go p.serve(c)
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer p.forget(client)
	if !p.remember(client) {
		return
	}
	p.gate()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.forget(server)
	if !p.remember(server) {
		return
	}
	done := make(chan struct{})
	go func() {
		p.copy(server, client)
		close(done)
	}()
	p.copy(client, server)
	<-done
}

// remember notes an open connection, or says that it must end.
func (p *Proxy) remember(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = true
	return p.state != refusing
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	c.Close()
}

func (p *Proxy) gate() {
	p.mu.Lock()
	thawed := p.thawed
	p.mu.Unlock()
	<-thawed
}

func (p *Proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.gate()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	to.Close()
	from.Close()
}
