package faults

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"hythe.dev/hythe/internal/envoy/envoytest"
)

// attackTime is how long each attack goes on.
const attackTime = 3 * time.Second

// mostMemory is what Envoy may have allocated at any time during an attack, which is some thousand times what it has at rest for
// each of its clients.
const mostMemory = 256 << 20

// TestFloods attacks Envoy while another client goes on with its own work: not one of its requests fails, Envoy lives, and its
// memory has bounds. How long the other client waits is logged, for people to see.
func TestFloods(t *testing.T) {
	r, _ := start(t)
	for _, a := range []struct {
		name        string
		connections int
		attack      func(ctx context.Context, r *envoytest.Rig) (did int)
	}{
		{"nothing", 1, func(ctx context.Context, _ *envoytest.Rig) int { <-ctx.Done(); return 0 }},
		{"rapid reset", 4, overTwo(rapidReset)},
		{"resets by the server", 4, overTwo(madeReset)},
		{"continuation", 4, overTwo(continuation)},
		{"continuation, empty frames", 4, overTwo(emptyContinuation)},
		{"settings", 4, overTwo(func(c *two, _ int) error { return c.framer.WriteSettings() })},
		{"ping", 4, overTwo(func(c *two, _ int) error { return c.framer.WritePing(false, [8]byte{}) })},
		{"priority", 4, overTwo(func(c *two, n int) error {
			return c.framer.WritePriority(uint32(2*n+1), http2.PriorityParam{StreamDep: 0, Weight: 1})
		})},
		{"empty data", 4, overTwo(emptyData)},
		{"window of nothing", 4, overTwo(noWindow)},
		{"giant headers", 4, giantHeaders},
		{"many headers", 4, manyHeaders},
		{"connections", 4, connections},
		{"slow headers", 300, slowHeaders},
		{"slow bodies", 300, slowBodies},
	} {
		t.Run(a.name, func(t *testing.T) {
			ctx, stop := context.WithTimeout(t.Context(), attackTime)
			defer stop()
			var did, most atomic.Int64
			var attackers sync.WaitGroup
			for range a.connections {
				attackers.Go(func() { did.Add(int64(a.attack(ctx, r))) })
			}
			attackers.Go(func() {
				for ctx.Err() == nil {
					most.Store(max(most.Load(), memory(t, r)))
					time.Sleep(50 * time.Millisecond)
				}
			})
			times := other(ctx, t, r)
			attackers.Wait()
			slices.Sort(times)
			if len(times) == 0 {
				t.Fatal("the other client was not answered once")
			}
			t.Logf("attack: %d; other client: %d requests, p50 %s, p99 %s, slowest %s; Envoy's memory: %d KiB at most, %d KiB after",
				did.Load(), len(times), times[len(times)/2], times[len(times)*99/100], times[len(times)-1], most.Load()>>10, memory(t, r)>>10)
			if most.Load() > mostMemory {
				t.Errorf("Envoy had %d bytes", most.Load())
			}
		})
	}
}

// other is a client that asks over connections of HTTP/1.1 that stay and over new ones, and wants 200 each time.
func other(ctx context.Context, t *testing.T, r *envoytest.Rig) []time.Duration {
	t.Helper()
	var times []time.Duration
	stays := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	anew := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	defer stays.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		client := stays
		if n%4 == 0 {
			client = anew
		}
		req, err := http.NewRequest(http.MethodPost, "http://"+r.Settings.HTTP.String()+"/", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "a.test"
		begin := time.Now()
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("request %d of the other client: %v", n, err)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("request %d of the other client: %s", n, resp.Status)
		}
		times = append(times, time.Since(begin))
		time.Sleep(2 * time.Millisecond)
	}
	return times
}

// memory is what Envoy has allocated.
func memory(t *testing.T, r *envoytest.Rig) int64 { return stat(t, r, "server.memory_allocated") }

// stat is a counter or gauge of Envoy's.
func stat(t *testing.T, r *envoytest.Rig, name string) int64 {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Clean(r.Admin))
	}}}
	resp, err := client.Get("http://envoy/stats?filter=^" + name + "$")
	if err != nil {
		t.Errorf("Envoy's admin page: %v", err)
		return 0
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	_, value, _ := strings.Cut(strings.TrimSpace(string(text)), ": ")
	out, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		t.Errorf("%s is %q", name, text)
	}
	return out
}

// overTwo does something on connections of HTTP/2 again and again, and connects anew where Envoy ends one.
func overTwo(do func(c *two, n int) error) func(context.Context, *envoytest.Rig) int {
	return func(ctx context.Context, r *envoytest.Rig) (did int) {
		for ctx.Err() == nil {
			c, err := dialTwo(r.Settings.HTTP)
			if err != nil {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			stop := context.AfterFunc(ctx, func() { c.conn.Close() })
			go func() { _, _ = io.Copy(io.Discard, c.conn) }()
			for n := 0; ctx.Err() == nil && do(c, n) == nil; n++ {
				did++
			}
			stop()
			c.conn.Close()
		}
		return did
	}
}

func (c *two) request(n int, end bool, more ...string) error {
	fields := append([]string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a.test"}, more...)
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 1), BlockFragment: c.block(fields...), EndHeaders: true, EndStream: end})
}

func rapidReset(c *two, n int) error {
	if err := c.request(n, true); err != nil {
		return err
	}
	return c.framer.WriteRSTStream(uint32(2*n+1), http2.ErrCodeCancel)
}

// madeReset makes Envoy itself reset the stream (CVE-2025-8671).
func madeReset(c *two, n int) error {
	if err := c.request(n, false); err != nil {
		return err
	}
	return c.framer.WriteRawFrame(http2.FrameWindowUpdate, 0, uint32(2*n+1), []byte{0, 0, 0, 0})
}

func continuation(c *two, n int) error {
	part := c.block("x-"+strconv.Itoa(n), strings.Repeat("y", 8000))
	if n == 0 {
		return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a.test")})
	}
	return c.framer.WriteContinuation(1, false, part)
}

func emptyContinuation(c *two, n int) error {
	if n == 0 {
		return continuation(c, 0)
	}
	return c.framer.WriteContinuation(1, false, nil)
}

func emptyData(c *two, n int) error {
	if n == 0 {
		return c.request(0, false)
	}
	return c.framer.WriteData(1, false, nil)
}

// noWindow asks for answers and takes none of them.
func noWindow(c *two, n int) error {
	if n == 0 {
		if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
			return err
		}
	}
	if n > 2000 {
		return io.EOF
	}
	return c.request(n, true)
}

func giantHeaders(ctx context.Context, r *envoytest.Rig) (did int) {
	text := "GET / HTTP/1.1\r\nHost: a.test\r\nX: " + strings.Repeat("y", 1<<20) + "\r\n\r\n"
	for ctx.Err() == nil {
		raw(r.Settings.HTTP, text, 100*time.Millisecond)
		did++
	}
	return did
}

func manyHeaders(ctx context.Context, r *envoytest.Rig) (did int) {
	text := "GET / HTTP/1.1\r\nHost: a.test\r\n" + strings.Repeat("x: y\r\n", 5000) + "\r\n"
	for ctx.Err() == nil {
		raw(r.Settings.HTTP, text, 100*time.Millisecond)
		did++
	}
	return did
}

// connections opens as many as it can and says nothing on them.
func connections(ctx context.Context, r *envoytest.Rig) (did int) {
	var open []net.Conn
	for ctx.Err() == nil && did < 1000 {
		conn, err := net.DialTimeout("tcp", r.Settings.HTTP.String(), time.Second)
		if err != nil {
			break
		}
		open = append(open, conn)
		did++
	}
	<-ctx.Done()
	for _, c := range open {
		c.Close()
	}
	return did
}

// slowly says the beginning of a request, then one byte a second.
func slowly(ctx context.Context, r *envoytest.Rig, text string) (did int) {
	conn, err := net.DialTimeout("tcp", r.Settings.HTTP.String(), 5*time.Second)
	if err != nil {
		return 0
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
	for ctx.Err() == nil {
		if _, err := io.WriteString(conn, "x"); err != nil {
			return did
		}
		did++
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return did
}

func slowHeaders(ctx context.Context, r *envoytest.Rig) int {
	return slowly(ctx, r, "GET / HTTP/1.1\r\nHost: a.test\r\nX: ")
}

func slowBodies(ctx context.Context, r *envoytest.Rig) int {
	return slowly(ctx, r, "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n")
}

// TestSlowClientsAreEnded wants clients who never finish their headers to be told so after ten seconds, and bodies on which no
// byte moves to end by the idle time.
func TestSlowClientsAreEnded(t *testing.T) {
	r, p := start(t)
	r.Settings.StreamIdleTimeout = 18 * time.Second
	if _, status := r.Set(t, world(t, p)); len(status.Refused) > 0 {
		t.Fatal(status.Refused)
	}
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		text string
		want int
		most time.Duration
	}{
		"headers":        {"GET / HTTP/1.1\r\nHost: a.test\r\nX: ", 408, 15 * time.Second},
		"first line":     {"GET /", 408, 15 * time.Second},
		"body that ends": {"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nx", 408, 25 * time.Second},
	} {
		all.Go(func() {
			conn, err := net.Dial("tcp", r.Settings.HTTP.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			begin := time.Now()
			_, _ = io.WriteString(conn, c.text)
			if name == "headers" { // that bytes come does not help
				go func() {
					for {
						if _, err := io.WriteString(conn, "x"); err != nil {
							return
						}
						time.Sleep(500 * time.Millisecond)
					}
				}()
			}
			_ = conn.SetReadDeadline(begin.Add(30 * time.Second))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Errorf("%s: %v after %s", name, err, time.Since(begin))
				return
			}
			if resp.StatusCode != c.want || time.Since(begin) > c.most {
				t.Errorf("%s: %s after %s, want %d", name, resp.Status, time.Since(begin), c.want)
			}
		})
	}
	all.Wait()
}

// TestGiantHeaders wants 431, by both versions of HTTP, for one header that is too large, for many small ones and for
// cookies, and that what fits is served.
func TestGiantHeaders(t *testing.T) {
	r, p := start(t)
	for _, c := range []struct {
		name       string
		n          int
		key, value string
		one, two   int
	}{
		{"one that fits", 1, "x", strings.Repeat("y", 50<<10), 200, 200},
		{"one", 1, "x", strings.Repeat("y", 70<<10), 431, refused},
		{"many that fit", 80, "x", "y", 200, 200},
		{"many", 150, "x", "y", 431, refused},
		{"cookies", 200, "cookie", strings.Repeat("y", 400), 431, refused},
	} {
		lines, fields := "", []string{}
		for i := range c.n {
			key := c.key
			if key == "x" {
				key = fmt.Sprint("x", i)
			}
			lines += key + ": " + c.value + "\r\n"
			fields = append(fields, key, c.value)
		}
		if got, _ := raw(r.Settings.HTTP, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n"+lines+"\r\n", 3*time.Second); !slices.Equal(got, []int{c.one}) {
			t.Errorf("%s, HTTP/1.1: %v, want %d", c.name, got, c.one)
		}
		conn, err := dialTwo(r.Settings.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		block := conn.block(append([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a.test"}, fields...)...)
		for first := true; first || len(block) > 0; first = false {
			part := block[:min(len(block), 16000)]
			block = block[len(part):]
			if first {
				_ = conn.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: part, EndHeaders: len(block) == 0, EndStream: true})
			} else {
				_ = conn.framer.WriteContinuation(1, len(block) == 0, part)
			}
		}
		if got := conn.status(); got != c.two && (c.two != refused || got > 0 && got < 400) {
			t.Errorf("%s, HTTP/2: %d, want %d", c.name, got, c.two)
		}
		conn.conn.Close()
	}
	if saw, _, broken := p.take(); len(saw) != 4 || len(broken) > 0 {
		t.Errorf("the pod saw %q, and could not read %q", saw, broken)
	}
}
