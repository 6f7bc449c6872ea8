package services

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// patience is for one answer: longer than a SYN's first repetition, so that a busy machine fails no test.
	patience = 2500 * time.Millisecond
	// silence is how long nobody answers where nobody should.
	silence = 500 * time.Millisecond
	// catchUp is how long a program may take until packets go as they should.
	catchUp = 6 * time.Second
)

// kept is a connection that open made.
type kept struct {
	net.Conn
	r *bufio.Reader
}

type keeping struct{ keptMu sync.Mutex }

// run asks until all is as it should be, or time is up, and returns the different answers.
func (l *lab) run(program string, ask Ask) []string {
	want := ask.For(program)
	for deadline := time.Now().Add(catchUp); ; {
		seen := l.sample(ask, want)
		if want.Met(seen) || time.Now().After(deadline) || ask.Kind == "still" {
			return seen
		}
	}
}

// sample asks often enough that each wanted answer is seen, but for one time in millions.
func (l *lab) sample(ask Ask, want Outcome) []string {
	least, most := 12, 12
	switch {
	case ask.Port != 0 || ask.Kind == "open" || ask.Kind == "still" || ask.Kind == "ping" || want.Silent():
		least, most = 1, 1
	case ask.Count > 0:
		least, most = ask.Count, ask.Count
	case want.One:
		least, most = 24, 24
	}
	if n := len(want.Answers); n > 1 && !want.One {
		most = max(least, 20*n)
	}
	wait := patience
	if want.Silent() {
		wait = silence
	}
	seen := map[string]bool{}
	for i := 0; i < least || i < most && !containsAll(seen, want.Answers); i++ {
		if i > 0 {
			time.Sleep(ask.Pause)
		}
		answer := l.ask(ask, wait)
		seen[answer] = true
		if answer == Dropped && !want.Silent() {
			break // each of them would take long
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func containsAll(seen map[string]bool, want []string) bool {
	for _, w := range want {
		if !seen[w] {
			return false
		}
	}
	return true
}

// ask sends one packet, or opens one connection, and says what became of it.
func (l *lab) ask(ask Ask, wait time.Duration) string {
	from := l.hosts[ask.From]
	if ask.From == "client2" {
		from = l.hosts["client"]
	}
	switch ask.Kind {
	case "ping":
		return l.ping(from, ask.To.Addr())
	case "http":
		return l.get(from, "http://"+ask.To.String()+ask.Path)
	case "still":
		l.keptMu.Lock()
		k := l.kept[key(ask)]
		l.keptMu.Unlock()
		if k == nil {
			return "never opened"
		}
		defer k.Close()
		_, _ = k.Write([]byte("?"))
		return l.answer(k.Conn, k.r, wait)
	}
	network := ask.Kind
	if network == "open" {
		network = "tcp"
	}
	c, err := l.dial(from, network, ask, wait)
	if err != nil {
		return failure(err)
	}
	r := bufio.NewReader(c)
	if ask.Kind == "open" {
		l.keptMu.Lock()
		defer l.keptMu.Unlock()
		l.kept[key(ask)] = &kept{c, r}
		return l.answer(c, r, wait)
	}
	defer c.Close()
	if network == "udp" {
		_, _ = c.Write([]byte("?"))
	}
	return l.answer(c, r, wait)
}

func key(a Ask) string { return fmt.Sprint(a.File, a.From, a.Port, a.To) }

func (l *lab) dial(from *host, network string, ask Ask, wait time.Duration) (c net.Conn, err error) {
	d := net.Dialer{Timeout: wait}
	var source netip.Addr
	if text := map[string]string{"client": onLAN["client"], "client2": client2}[ask.From]; text != "" {
		source = netip.MustParseAddr(text)
		if ask.To.Addr().Is6() {
			source = SixOf(source)
		}
	}
	if ask.Port != 0 { // both families at a time
		network += map[bool]string{false: "4", true: "6"}[ask.To.Addr().Is6()]
	}
	if ask.Port != 0 || source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, ask.Port))
		if strings.HasPrefix(network, "udp") {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, ask.Port))
		}
	}
	l.in(from, func() { c, err = d.Dial(network, ask.To.String()) })
	return c, err
}

// answer reads a line of a server: name, port and the address that it sees.
func (l *lab) answer(c net.Conn, r *bufio.Reader, wait time.Duration) string {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	line, err := r.ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) != 3 {
		return failure(err)
	}
	name := fields[0]
	if fields[1] != "8080" {
		name += ":" + fields[1]
	}
	saw, err := netip.ParseAddrPort(fields[2])
	if err != nil {
		return err.Error()
	}
	return name + "=" + l.nameOf(saw.Addr().Unmap())
}

func (l *lab) nameOf(a netip.Addr) string {
	if name := l.names[a]; name != "" {
		return name
	}
	return a.String()
}

func failure(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Dropped
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case err == nil:
		return "no answer that is understood"
	}
	return strings.ReplaceAll(err.Error(), " ", "-")
}

// get asks a port of health checks.
func (l *lab) get(from *host, url string) string {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
		l.in(from, func() { c, err = net.DialTimeout(network, addr, patience) })
		return c, err
	}}
	client := http.Client{Transport: transport, Timeout: patience}
	response, err := client.Get(url)
	if err != nil {
		return failure(err)
	}
	defer response.Body.Close()
	var body struct{ LocalEndpoints int }
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		return fmt.Sprint(response.StatusCode, " without JSON")
	}
	return fmt.Sprint(response.StatusCode, " ", body.LocalEndpoints)
}

func (l *lab) ping(from *host, addr netip.Addr) (out string) {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if addr.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	l.in(from, func() {
		c, err := net.DialTimeout(network, addr.String(), silence)
		if err != nil {
			out = failure(err)
			return
		}
		defer c.Close()
		packet := []byte{request, 0, 0, 0, 1, 2, 0, 1}
		binary.BigEndian.PutUint16(packet[2:], ^uint16(int(request)<<8+0x0102+0x0001)) // the kernel does it for IPv6
		_, err = c.Write(packet)
		_ = c.SetReadDeadline(time.Now().Add(silence))
		for err == nil {
			buf := make([]byte, 100)
			if _, _, err = c.(net.PacketConn).ReadFrom(buf); err == nil && buf[0] == reply {
				out = Reply
				return
			}
		}
		out = failure(err)
	})
	return out
}
