package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	vnetlink "github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/lab/topology"
)

// A path is a node with a pod that asks and one that answers, which has several addresses.
//
//	client 10.244.0.2 ──veth── node (the subject's rules) ──veth── server 10.244.1.2, .3, .4
type path struct {
	*agent
	client, server string // namespaces
	echo           *echo
}

var (
	clientAddr  = netip.MustParseAddr("10.244.0.2")
	serverAddrs = []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.1.3"), netip.MustParseAddr("10.244.1.4")}
)

// probed are the Services that lead to the server: the first, the middle and the last.
func probed(services int) []int { return []int{0, services / 2, services - 1} }

// newPath starts a subject and lays the path; it waits until all Services are there.
func newPath(ctx context.Context, b *bench, who subject, w world, name string) (*path, error) {
	w.real = func(i int) []netip.Addr {
		if slices.Contains(probed(w.services), i) {
			return serverAddrs
		}
		return nil
	}
	server, err := w.serve()
	if err != nil {
		return nil, err
	}
	s, err := newSpace(name, b.dir, server)
	if err != nil {
		return nil, err
	}
	p := &path{client: s.name + "-client", server: s.name + "-server"}
	if p.agent, err = s.start(b.programs, who); err != nil {
		return nil, errors.Join(err, s.close())
	}
	err = errors.Join(s.plug(p.client, netip.MustParseAddr("10.244.0.1"), clientAddr), s.plug(p.server, netip.MustParseAddr("10.244.1.1"), serverAddrs...))
	if err == nil {
		p.echo, err = serveEcho(p.server)
	}
	if err == nil {
		err = topology.Do(s.name, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	}
	if err == nil {
		_, err = p.wait(ctx, w)
	}
	if err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

func (p *path) end() error {
	if p.echo != nil {
		p.echo.close()
	}
	return errors.Join(p.stop(syscall.SIGTERM), p.close(), topology.DeleteNamespace(p.client), topology.DeleteNamespace(p.server))
}

// plug makes a pod's namespace with these addresses, and a veth to it.
func (s *space) plug(pod string, gateway netip.Addr, addrs ...netip.Addr) error {
	if err := errors.Join(topology.DeleteNamespace(pod), topology.CreateNamespace(pod)); err != nil {
		return err
	}
	fd, err := netns.GetFromName(pod)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", pod, err)
	}
	defer fd.Close()
	device := "to-" + pod[strings.LastIndex(pod, "-")+1:]
	cidr := func(a netip.Addr) *net.IPNet { return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)} }
	err = s.withLinks(func(h *vnetlink.Handle) error {
		if err := h.LinkAdd(&vnetlink.Veth{LinkAttrs: vnetlink.LinkAttrs{Name: device}, PeerName: "eth0", PeerNamespace: vnetlink.NsFd(fd)}); err != nil {
			return err
		}
		l, err := h.LinkByName(device)
		if err != nil {
			return err
		}
		return errors.Join(h.AddrAdd(l, &vnetlink.Addr{IPNet: cidr(gateway)}), h.LinkSetUp(l))
	})
	if err != nil {
		return err
	}
	return (&space{name: pod}).withLinks(func(h *vnetlink.Handle) error {
		l, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		errs := []error{h.LinkSetUp(l)}
		for _, a := range addrs {
			errs = append(errs, h.AddrAdd(l, &vnetlink.Addr{IPNet: cidr(a)}))
		}
		return errors.Join(append(errs, h.RouteAdd(&vnetlink.Route{LinkIndex: l.Attrs().Index, Gw: gateway.AsSlice()}))...)
	})
}

// dial connects from the client's pod to a Service.
func (p *path) dial(ctx context.Context, service int) (net.Conn, error) {
	return topology.Dial(ctx, p.client, "tcp", netip.AddrPortFrom(clusterIP(service), servicePort).String())
}

// An echo sends back what it gets. It is a process of its own: both ends of 10,000 connections are more files than one may have.
type echo struct{ cmd *exec.Cmd }

func serveEcho(ns string) (*echo, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, "-echo")
	cmd.Stderr = os.Stderr
	out, errOut := cmd.StdoutPipe()
	_, errIn := cmd.StdinPipe() // it ends with its input: a signal for the parent's death would come at the death of the thread that starts it
	if err := errors.Join(errOut, errIn); err != nil {
		return nil, fmt.Errorf("start echo: %w", err)
	}
	if err := topology.Start(ns, cmd); err != nil {
		return nil, fmt.Errorf("start echo in %s: %w", ns, err)
	}
	e := &echo{cmd}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it listens
		e.close()
		return nil, fmt.Errorf("start echo in %s: %w", ns, err)
	}
	return e, nil
}

func (e *echo) close() {
	_ = e.cmd.Process.Kill()
	_ = e.cmd.Wait()
}

// runEcho is the process of an echo.
func runEcho() error {
	listener, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", podPort))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println("listening")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = listener.Close()
	}()
	for {
		c, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			_, _ = io.Copy(c, onlyReader{c}) // no splice: the path is measured, not the pipe
			_ = c.Close()
		}()
	}
}

type onlyReader struct{ io.Reader }

// traffic is the benchmark of packets.
func (b *bench) traffic(ctx context.Context) error {
	sizes, rounds := []int{10, 1000, 10_000, 30_000}, 30
	if b.short {
		sizes, rounds = []int{10}, 2
	}
	var errs []error
	for _, n := range sizes {
		if b.done("traffic", n) || ctx.Err() != nil {
			continue
		}
		errs = append(errs, b.trafficOf(ctx, world{services: n, endpoints: 3}, rounds))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// trafficOf measures subjects in turns, so that what else runs meets both.
func (b *bench) trafficOf(ctx context.Context, w world, rounds int) (err error) {
	var paths []*path
	defer func() {
		for _, p := range paths {
			err = errors.Join(err, p.end())
		}
	}()
	for _, who := range b.rivals(w.services) {
		if who == iptables && w.services > 1000 {
			continue
		}
		p, err := newPath(ctx, b, who, w, fmt.Sprint("path-", len(paths)))
		if err != nil {
			return err
		}
		paths = append(paths, p)
	}
	values := map[measurement][]float64{}
	for round := range rounds {
		if err := trafficRound(ctx, paths, w, round, values); err != nil {
			return b.addAll(values, err)
		}
	}
	return b.addAll(values, nil)
}

// trafficRound measures each path once, and adds to values.
func trafficRound(ctx context.Context, paths []*path, w world, round int, values map[measurement][]float64) (err error) {
	connects := make([][]float64, len(paths))
	for n := range 60 { // one by one in turns: the differences are those of pairs
		for _, i := range turns(len(paths), n/3) {
			ms, err := paths[i].connect(ctx, probed(w.services)[n%3])
			if err != nil {
				return err
			}
			connects[i] = append(connects[i], 1000*ms)
		}
	}
	rates := make([][3]float64, len(paths))
	for _, i := range turns(len(paths), round) {
		if rates[i], err = paths[i].rates(ctx, probed(w.services)[1]); err != nil {
			return err
		}
	}
	for i, p := range paths {
		note := func(what string, v ...float64) {
			m := measurement{"traffic", what, p.who, w.services, w.endpoints}
			values[m] = append(values[m], v...)
		}
		note("connect, µs", connects[i]...)
		note("connections a second", rates[i][0])
		note("requests a second", rates[i][1])
		note("throughput, Gbit/s", rates[i][2])
		if i == 0 || paths[0].who != hythe {
			continue
		}
		for n := range connects[0] {
			note("connect, µs more than hythe", connects[i][n]-connects[0][n])
			note("connect, of hythe's", connects[i][n]/connects[0][n])
		}
		note("connections a second, of hythe's", rates[i][0]/rates[0][0])
		note("requests a second, of hythe's", rates[i][1]/rates[0][1])
		note("throughput, of hythe's", rates[i][2]/rates[0][2])
	}
	return ctx.Err()
}

// turns are the numbers below n, each time another one first.
func turns(n, time int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = (i + time) % n
	}
	if time/n%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// connect returns how long a connection takes to be there, in ms: the handshake's three packets through the rules.
func (p *path) connect(ctx context.Context, service int) (float64, error) {
	var took time.Duration
	err := topology.Do(p.client, func() error {
		to := netip.AddrPortFrom(clusterIP(service), servicePort)
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		if err := errors.Join(syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}),
			syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &syscall.Timeval{Sec: 5})); err != nil {
			return err
		}
		begin := time.Now()
		err = connected(fd, syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
		took = time.Since(begin)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("connect to Service %d of %s: %w", service, p.who, errors.Join(err, ctx.Err()))
	}
	return float64(took.Nanoseconds()) / 1e6, nil
}

// connected is how a connect ended. One that a signal interrupted (Go's scheduler sends some) goes on without its caller, and
// is not to be called again (connect(2), EINTR).
func connected(fd int, err error) error {
	for errors.Is(err, syscall.EINTR) {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}} //nolint:gosec // a descriptor
		n, again := unix.Poll(ready, 5000)
		switch {
		case again != nil:
			err = again
		case n == 0:
			return syscall.ETIMEDOUT
		default:
			code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && code != 0 {
				err = syscall.Errno(code)
			}
			return err
		}
	}
	return err
}

// slot is how long a rate is measured at a time.
const slot = 200 * time.Millisecond

// rates returns connections a second, requests a second of one connection, and Gbit/s of one connection.
func (p *path) rates(ctx context.Context, service int) (out [3]float64, err error) {
	n, begin := 0, time.Now()
	for time.Since(begin) < slot {
		if _, err := p.connect(ctx, service); err != nil {
			return out, err
		}
		n++
	}
	out[0] = float64(n) / time.Since(begin).Seconds()
	c, err := p.dial(ctx, service)
	if err != nil {
		return out, err
	}
	defer c.Close()
	word := make([]byte, 64)
	if err := ping(c, word); err != nil { // the first one warms the path
		return out, fmt.Errorf("ask Service %d of %s: %w", service, p.who, err)
	}
	n, begin = 0, time.Now()
	for time.Since(begin) < slot {
		if err := ping(c, word); err != nil {
			return out, fmt.Errorf("ask Service %d of %s: %w", service, p.who, err)
		}
		n++
	}
	out[1] = float64(n) / time.Since(begin).Seconds()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return out, fmt.Errorf("fill a connection of %s: %w", p.who, err)
	}
	back := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, onlyReader{c})
		back <- n
	}()
	block := make([]byte, 1<<18)
	begin = time.Now()
	for time.Since(begin) < slot {
		if _, err := c.Write(block); err != nil {
			return out, fmt.Errorf("fill a connection of %s: %w", p.who, err)
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return out, fmt.Errorf("fill a connection of %s: %w", p.who, err)
	}
	out[2] = 8 * float64(<-back) / 1e9 / time.Since(begin).Seconds()
	return out, nil
}

// ping sends a word and waits for it.
func ping(c net.Conn, word []byte) error {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(word); err != nil {
		return err
	}
	_, err := io.ReadFull(c, word)
	return errors.Join(err, c.SetDeadline(time.Time{}))
}
