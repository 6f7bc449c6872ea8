package envoy_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
)

// echoCalls is a server of gRPC: it sends each message back, and ends with a status where a message is "fail".
func echoCalls(t *testing.T) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		stream.SetTrailer(metadata.Pairs("trailer", "there"))
		for {
			var message []byte
			if err := stream.RecvMsg(&message); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if string(message) == "fail" {
				return grpcstatus.Error(codes.FailedPrecondition, "as asked")
			}
			if err := stream.SendMsg(&message); err != nil {
				return err
			}
		}
	}))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-ended })
	return netip.MustParseAddrPort(listener.Addr().String())
}

// ofGRPC is a Config for a pod that speaks gRPC.
func ofGRPC(t *testing.T) gateway.Config {
	t.Helper()
	c := envoytest.Config(t, "a.test", echoCalls(t))
	settings := policy.Backend{Protocol: policy.H2C}
	c.Backends[0] = gateway.Backend{Name: "shop/web:http" + settings.String(), Endpoints: "shop/web:http", Backend: settings}
	c.Hosts[0].Routes[0].Backend = c.Backends[0].Name
	return c
}

// TestGRPC has a call of which messages go both ways in turn, with trailers and a status.
func TestGRPC(t *testing.T) {
	r := envoytest.New(t, nil)
	set(t, r, ofGRPC(t))
	conn, err := grpc.NewClient("passthrough:///"+r.Settings.HTTPS.String(), grpc.WithAuthority("a.test"),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, ServerName: "a.test"})),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Talk")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		message, answer := []byte(strconv.Itoa(i)), []byte(nil)
		if err := stream.SendMsg(&message); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&answer); err != nil || !bytes.Equal(answer, message) {
			t.Fatalf("message %d is answered %q %v", i, answer, err)
		}
	}
	last := []byte("fail")
	if err := stream.SendMsg(&last); err != nil {
		t.Fatal(err)
	}
	err = stream.RecvMsg(&last)
	if grpcstatus.Code(err) != codes.FailedPrecondition || strings.Join(stream.Trailer()["trailer"], "") != "there" {
		t.Errorf("the call ends with %v, trailers %v", err, stream.Trailer())
	}
}

// TestGRPCWeb asks a pod that speaks gRPC as a browser does, by HTTP/1.1.
func TestGRPCWeb(t *testing.T) {
	r := envoytest.New(t, nil)
	c := ofGRPC(t)
	set(t, r, c)
	frame := []byte("\x00\x00\x00\x00\x05hello")
	call := func(contentType string, body []byte) (*http.Response, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+r.Settings.HTTP.String()+"/test.Echo/Talk", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "a.test"
		request.Header.Set("Content-Type", contentType)
		request.Header.Set("Accept", contentType)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		answer, _ := io.ReadAll(response.Body)
		return response, string(answer)
	}
	// The answer is the message, and a frame of flag 0x80 with the trailers.
	holds := func(answer string) bool {
		rest, ok := strings.CutPrefix(answer, string(frame))
		return ok && strings.HasPrefix(rest, "\x80") && strings.Contains(rest, "grpc-status:0\r\n") && strings.Contains(rest, "trailer:there\r\n")
	}
	if response, answer := call("application/grpc-web+proto", frame); response.StatusCode != http.StatusOK || !holds(answer) {
		t.Errorf("gRPC-Web: %d %q", response.StatusCode, answer)
	}
	response, answer := call("application/grpc-web-text", []byte(base64.StdEncoding.EncodeToString(frame)))
	var decoded []byte // each frame is encoded for itself
	for part := range strings.SplitAfterSeq(answer, "=") {
		b, err := base64.StdEncoding.DecodeString(part)
		if part != "=" && part != "" && err != nil {
			b, _ = base64.StdEncoding.DecodeString(part + "=")
		}
		decoded = append(decoded, b...)
	}
	if response.StatusCode != http.StatusOK || !holds(string(decoded)) {
		t.Errorf("gRPC-Web as text: %d %q", response.StatusCode, answer)
	}
	c.Listen.NoGRPCWeb = true
	set(t, r, c)
	if response, answer := call("application/grpc-web+proto", frame); response.StatusCode == http.StatusOK && holds(answer) {
		t.Error("gRPC-Web is made to gRPC although that is switched off")
	}
}

// TestGRPCWebStays has gRPC-Web come to a pod that speaks HTTP/1.1 as the browser sent it.
func TestGRPCWebStays(t *testing.T) {
	r := envoytest.New(t, nil)
	set(t, r, envoytest.Config(t, "a.test", tellHeaders(t)))
	status, saw, err := visit{from: "127.0.0.3", over: "http", header: "Content-Type: application/grpc-web+proto\r\n"}.ask(t, r)
	if err != nil || status != 200 || saw.Get("Content-Type") != "application/grpc-web+proto" {
		t.Errorf("%d %v, the pod sees %v", status, err, saw)
	}
}

// TestWebSocket needs no annotation, over http and https.
func TestWebSocket(t *testing.T) {
	pod := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", req.Header.Get("Upgrade"))
		_, _ = io.Copy(conn, rw)
	}))
	defer pod.Close()
	r := envoytest.New(t, nil)
	set(t, r, envoytest.Config(t, "a.test", netip.MustParseAddrPort(pod.Listener.Addr().String())))
	for name, conn := range map[string]net.Conn{
		"http":  connect(t, "127.0.0.3", r.Settings.HTTP),
		"https": tls.Client(connect(t, "127.0.0.3", r.Settings.HTTPS), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}),
	} {
		t.Run(name, func(t *testing.T) {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			reader := bufio.NewReader(conn)
			response, err := http.ReadResponse(reader, nil)
			if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("%v %v", response, err)
			}
			for i := range 3 {
				line := fmt.Sprintf("message %d\n", i)
				fmt.Fprint(conn, line)
				if got, err := reader.ReadString('\n'); err != nil || got != line {
					t.Errorf("%q comes back as %q %v", line, got, err)
				}
			}
		})
	}
}

// TestCompression has answers in the best way that the client takes, and leaves alone what is not to be compressed.
func TestCompression(t *testing.T) {
	text := strings.Repeat("some text that can be compressed; ", 100)
	pod := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		q := req.URL.Query()
		body := text
		if n, _ := strconv.Atoi(q.Get("bytes")); n > 0 {
			body = text[:n]
		}
		w.Header().Set("Content-Type", q.Get("type"))
		w.Header().Set("ETag", `"1"`)
		if e := q.Get("encoded"); e != "" {
			w.Header().Set("Content-Encoding", e)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		if q.Get("part") != "" {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = io.WriteString(w, body)
	}))
	defer pod.Close()
	r := envoytest.New(t, nil)
	c := envoytest.Config(t, "a.test", netip.MustParseAddrPort(pod.Listener.Addr().String()))
	set(t, r, c)
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // or it goes on with a listener that drains
	ask := func(query, accepts string) (*http.Response, []byte) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Settings.HTTP.String()+"/?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = "a.test"
		request.Header.Set("Accept-Encoding", accepts)
		response, err := fresh.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response, body
	}
	if response, _ := ask("type=text/html", "br, zstd, gzip"); response.Header.Get("Content-Encoding") != "" {
		t.Errorf("without a setting answers are compressed: %v", response.Header)
	}
	c.Compression = gateway.Compression{
		Algorithms: []gateway.Algorithm{gateway.Brotli, gateway.Zstd, gateway.Gzip}, Types: []string{"application/json", "text/html"}, MinBytes: 256,
	}
	set(t, r, c)
	for _, v := range []struct{ query, accepts, want string }{
		{"type=text/html", "gzip, deflate, br, zstd", "br"},
		{"type=text/html", "gzip", "gzip"},
		{"type=text/html", "zstd", "zstd"},
		{"type=text/html", "br;q=0.5, gzip;q=0.9", "gzip"},
		{"type=text/html%3B+charset=utf-8", "br", "br"},
		{"type=application/json", "br", "br"},
		{"type=text/html", "identity", ""},
		{"type=text/html", "br;q=0", ""},
		{"type=image/png", "br", ""},
		{"type=text/event-stream", "br", ""},
		{"type=text/html&bytes=200", "br", ""},
		{"type=text/html&part=1", "br", ""},
		{"type=text/html&encoded=other", "br", "other"},
	} {
		response, body := ask(v.query, v.accepts)
		compressed := v.want != "" && v.want != "other"
		if got := response.Header.Get("Content-Encoding"); got != v.want || (len(body) < len(text)/4) != (compressed || strings.Contains(v.query, "bytes")) {
			t.Errorf("%s for %q: Content-Encoding %q and %d bytes, want %q", v.query, v.accepts, got, len(body), v.want)
		}
		if etag := response.Header.Get("ETag"); compressed && (etag != `W/"1"` || !strings.Contains(response.Header.Get("Vary"), "Accept-Encoding")) || !compressed && etag != `"1"` {
			t.Errorf("%s for %q: ETag %s, Vary %s", v.query, v.accepts, etag, response.Header.Get("Vary"))
		}
		if v.want == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := io.ReadAll(z); err != nil || string(plain) != text {
				t.Errorf("gzip: %d bytes, %v", len(plain), err)
			}
		}
	}
}
