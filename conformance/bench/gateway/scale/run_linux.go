package scale

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/xds"
	"hythe.dev/hythe/xds/server"
)

// A Row is one figure: the values of what was measured, with the unit at its end, with so many hosts.
type Row struct {
	// What was measured.
	What   string
	Hosts  int
	Values []float64
}

// Options say what is measured.
type Options struct {
	Envoy string // path of the program
	Dir   string // for sockets and logs
	Hosts int
	// OwnChains is xds.Settings.OwnChains.
	OwnChains int
	// Changes are how often one host is added, and Handshakes how many hosts are asked for, and how many names that are nobody's.
	Changes, Handshakes int
}

type bench struct {
	Options
	*world
	settings  xds.Settings
	server    *server.Server
	builder   xds.Builder
	resources xds.Resources
	rows      []Row
}

// Run measures one size. It returns the rows that it has also after an error.
func Run(ctx context.Context, o Options) ([]Row, error) {
	w, err := newWorld()
	if err != nil {
		return nil, err
	}
	b := &bench{Options: o, world: w}
	if err := b.grow(o.Hosts); err != nil {
		return nil, err
	}
	b.settings.OwnChains = o.OwnChains
	b.settings.HTTP, b.settings.HTTPS, b.settings.Ready = freeAddress(), freeAddress(), freeAddress()
	socket := filepath.Join(o.Dir, "scale.sock")
	if b.server, err = server.New(server.Options{Socket: socket}); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- b.server.Run(ctx) }()
	p, err := envoy.Start(ctx, envoy.Options{
		Path: o.Envoy, BootstrapFile: filepath.Join(o.Dir, "scale.yaml"), Concurrency: 2, DrainTime: 5 * time.Second,
		Bootstrap: envoy.BootstrapOptions{Node: "scale", XDSSocket: socket, AdminSocket: filepath.Join(o.Dir, "scale-admin.sock")},
	})
	if err == nil {
		err = b.measure(ctx, p.Pid())
	}
	stop()
	if p != nil {
		_ = p.Wait()
	}
	return b.rows, errors.Join(err, <-ended)
}

func (b *bench) row(what string, values ...float64) {
	b.rows = append(b.rows, Row{what, b.Hosts, values})
}

func (b *bench) measure(ctx context.Context, pid int) error {
	begin := time.Now()
	b.set()
	if err := b.served(ctx, b.Hosts-1); err != nil {
		return err
	}
	b.row("first 200 of the last host after the start, s", time.Since(begin).Seconds())
	b.row("Envoy's memory before handshakes, MB", megabytes(pid))
	for _, step := range []func(context.Context) error{b.change, b.handshakes, b.flood} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	b.row("Envoy's memory after all, MB", megabytes(pid))
	b.row("memory of this process, gateway and client, MB", megabytes(os.Getpid()))
	return nil
}

// set builds and sends, and returns how long the build took.
func (b *bench) set() time.Duration {
	begin := time.Now()
	b.resources, _ = b.builder.Build(b.Config, b.settings)
	took := time.Since(begin)
	b.server.Set(b.resources)
	return took
}

// change adds hosts one by one, and then 50 at once.
func (b *bench) change(ctx context.Context) error {
	var builds, times []float64
	var bytes float64
	for range b.Changes {
		if err := b.grow(len(b.Config.Hosts) + 1); err != nil {
			return err
		}
		before, begin := b.resources, time.Now()
		builds = append(builds, milliseconds(b.set()))
		if err := b.served(ctx, len(b.Config.Hosts)-1); err != nil {
			return err
		}
		times = append(times, milliseconds(time.Since(begin)))
		bytes = changed(&before, &b.resources)
	}
	b.row("build after one change, ms", builds...)
	b.row("one host more: to its first 200, ms", times...)
	b.row("one host more: resources sent, bytes", bytes)
	if err := b.grow(len(b.Config.Hosts) + 50); err != nil {
		return err
	}
	begin := time.Now()
	b.set()
	err := b.served(ctx, len(b.Config.Hosts)-1)
	b.row("fifty hosts more at once: to the first 200 of the last, ms", milliseconds(time.Since(begin)))
	return err
}

// changed is the size of resources that are new or have changed, but for key pairs that nobody asks for yet.
func changed(before, after *xds.Resources) float64 {
	sum := 0
	for _, kind := range xds.Kinds() {
		for r := range after.All(kind) {
			if old := before.Get(kind, r.Name); old == nil || old.Version != r.Version {
				sum += len(r.Body.GetValue())
			}
		}
	}
	return float64(sum)
}

// handshakes asks for hosts one after another, for the first time and again.
func (b *bench) handshakes(ctx context.Context) error {
	for _, what := range []string{"first request of a host by a new connection, ms", "further request of a host by a new connection, ms"} {
		var times []float64
		for n := range min(b.Handshakes, b.Hosts-1) {
			begin := time.Now()
			if err := b.ask(ctx, host(n)); err != nil {
				return err
			}
			times = append(times, milliseconds(time.Since(begin)))
		}
		b.row(what, times...)
	}
	return nil
}

// flood comes with names that are nobody's.
func (b *bench) flood(ctx context.Context) error {
	var times []float64
	for n := range b.Handshakes {
		begin := time.Now()
		d := tls.Dialer{Config: &tls.Config{ServerName: fmt.Sprintf("g%d.guest.test", n), InsecureSkipVerify: true}}
		c, err := d.DialContext(ctx, "tcp", b.settings.HTTPS.String())
		if err != nil {
			return fmt.Errorf("handshake with an unknown name: %w", err)
		}
		_ = c.Close()
		times = append(times, milliseconds(time.Since(begin)))
	}
	b.row("handshake with a name that is nobody's, ms", times...)
	return nil
}

// served waits until a host answers 200.
func (b *bench) served(ctx context.Context, n int) error {
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	for {
		err := b.ask(ctx, host(n))
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (b *bench) ask(ctx context.Context, name string) error {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, b.settings.HTTPS.String())
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/", nil)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	if got := answer.TLS.PeerCertificates[0].DNSNames; answer.StatusCode != http.StatusOK || len(got) != 1 || got[0] != name {
		return fmt.Errorf("host %s answers %d with the certificate of %v", name, answer.StatusCode, got)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// megabytes is the resident memory of a process.
func megabytes(pid int) float64 {
	if pid == os.Getpid() {
		runtime.GC()
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, _ := strconv.ParseFloat(strings.Fields(text)[0], 64)
			return kilobytes / 1024
		}
	}
	return 0
}

func freeAddress() netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}
