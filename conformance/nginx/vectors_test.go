package nginx

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/kube"
)

// TestVectors asks one Envoy all requests of testdata, file by file.
func TestVectors(t *testing.T) {
	r := envoytest.New(t, nil)
	people := newClients(t)
	count := 0
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, archive *golden.Archive) {
		pod := newPair(t, "pod", "pod.test")
		config, problems := build(t, archive, pod, people)
		archive.Want(t, "problems", problems)
		serve(t, &config, pod)
		serveAuth(t, &config, pod)
		if _, status := r.Set(t, config); len(status.Refused) > 0 {
			t.Fatalf("Envoy refuses %v", status.Refused)
		}
		vectors := parse(t, string(archive.Data("requests")))
		for _, v := range vectors {
			v.people = people
			v.check(t, r)
		}
		count += len(vectors)
	})
	t.Logf("%d requests", count)
}

// A seen is what a backend saw of a request; it is the answer's body.
type seen struct {
	Backend, URI, Host, Proto string
	Header                    http.Header
}

// serve puts servers that speak the Backend's protocol in the place of its endpoints.
func serve(t *testing.T, config *gateway.Config, pod pair) {
	t.Helper()
	config.EndpointSets = nil
	tests := new(orders)
	for i := range config.Backends {
		b := &config.Backends[i]
		name := b.Name
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Upgrade") == "websocket" && req.Header.Get("Test-Answer") != "refuse" {
				echo(w)
				return
			}
			mine := onlyFor(req, name)
			if mine && tests.early(w, req) {
				return
			}
			n, _ := io.Copy(io.Discard, req.Body)
			if mine && tests.answer(w, req) {
				return
			}
			describeTLS(req)
			req.Header.Set("Body-Bytes", strconv.FormatInt(n, 10))
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(seen{name, req.RequestURI, req.Host, req.Proto, req.Header})
		}))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(b.Protocol == policy.H2C)
		s.Config.Protocols.SetHTTP2(b.Protocol == policy.H2)
		s.EnableHTTP2 = b.Protocol == policy.H2
		s.TLS = pod.config()
		if b.Protocol.TLS() || b.Passthrough {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		b.Endpoints = name
		config.EndpointSets = append(config.EndpointSets, gateway.EndpointSet{
			Name: name, Addresses: []netip.AddrPort{netip.MustParseAddrPort(s.Listener.Addr().String())},
		})
	}
}

// echo is a WebSocket in what matters to a proxy: bytes after an upgrade.
func echo(w http.ResponseWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(conn, rw)
}

var pairReference = regexp.MustCompile(`(CERT|KEY)\(([^)]*)\)`)

// clientReference is for what clients' certificates are verified by.
var clientReference = regexp.MustCompile(`(CA|CRL)\(([^)]*)\)`)

func build(t *testing.T, archive *golden.Archive, pod pair, people *clients) (gateway.Config, string) {
	t.Helper()
	dir := t.TempDir()
	chain, key := envoytest.Pair(t, "any")
	named := map[string]pair{} // by their names
	for _, file := range archive.Files {
		if !strings.HasSuffix(file.Name, ".yaml") {
			continue
		}
		data := pairReference.ReplaceAllFunc(file.Data, func(ref []byte) []byte {
			which, name := pair{chain, key}, string(ref[5:len(ref)-1])
			if ref[0] == 'K' {
				name = string(ref[4 : len(ref)-1])
			}
			if name == "pod" {
				which = pod
			}
			if strings.Contains(name, ".") {
				if _, made := named[name]; !made {
					named[name] = newPair(t, name, strings.Split(name, ",")...)
				}
				which = named[name]
			}
			if ref[0] == 'K' {
				return []byte(base64.StdEncoding.EncodeToString(which.key))
			}
			return []byte(base64.StdEncoding.EncodeToString(which.chain))
		})
		data = clientReference.ReplaceAllFunc(data, func(ref []byte) []byte {
			m := clientReference.FindSubmatch(ref)
			var text []byte
			for name := range strings.SplitSeq(string(m[2]), ",") {
				text = append(text, people.text(t, string(m[1]), name)...)
			}
			return []byte(base64.StdEncoding.EncodeToString(text))
		})
		if err := os.WriteFile(filepath.Join(dir, file.Name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	snapshot, err := kube.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	config, problems := gateway.Build(snapshot, gateway.Settings{
		WithoutClass: true, HTTPSPort: 8443, DefaultChain: chain, DefaultKey: key, CatchAllNamespaces: []string{"*"},
	})
	var text strings.Builder
	for _, p := range append(problems, snapshot.Problems...) {
		fmt.Fprintln(&text, p)
	}
	return config, text.String()
}

// A vector is one request, and the answer that it must get.
type vector struct {
	line             int
	method           string
	url              *url.URL
	header           [][2]string
	body             int
	chunked, upgrade bool
	unfinished       bool
	times            int
	sni, client      string
	people           *clients
	status           int
	want             [][2]string
}

func parse(t *testing.T, text string) []vector {
	t.Helper()
	var out []vector
	var v vector
	cited := false
	for i, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		bad := func(format string, args ...any) {
			t.Fatalf("requests, line %d: "+format, append([]any{i + 1}, args...)...)
		}
		switch {
		case len(words) == 0:
			cited = false
		case words[0] == "#":
			cited = true
		case !cited:
			bad("the request cites nothing")
		case words[0] == "header":
			name, value, _ := strings.Cut(strings.TrimPrefix(line, "header "), ": ")
			v.header = append(v.header, [2]string{name, value})
		case words[0] == "times":
			v.times, _ = strconv.Atoi(words[1])
		case words[0] == "sni":
			v.sni = words[1]
		case words[0] == "client":
			v.client = words[1]
		case words[0] == "upgrade":
			v.upgrade = true
		case words[0] == "body":
			v.body, _ = strconv.Atoi(words[1])
			v.chunked = len(words) > 2 && words[2] == "chunked"
			v.unfinished = len(words) > 2 && words[2] == "unfinished"
		case words[0][0] >= '1' && words[0][0] <= '9':
			v.status, _ = strconv.Atoi(words[0])
			for _, w := range words[1:] {
				name, value, _ := strings.Cut(w, "=")
				v.want = append(v.want, [2]string{name, value})
			}
			if v.url == nil {
				bad("an answer without a request")
			}
			out = append(out, v)
			v = vector{}
		default:
			u, err := url.Parse(words[len(words)-1])
			if err != nil || len(words) != 2 {
				bad("%q is no request", line)
			}
			v = vector{line: i + 1, method: words[0], url: u}
		}
	}
	if len(out) == 0 {
		t.Fatal("there are no requests")
	}
	return out
}

// check asks until the answer is right, for a while: Envoy acknowledges before each of its workers has a configuration.
func (v vector) check(t *testing.T, r *envoytest.Rig) {
	t.Helper()
	var wrong string
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if wrong = v.wrong(r); wrong == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("requests, line %d: %s %s: %s", v.line, v.method, v.url, wrong)
			return
		}
	}
}

func (v vector) wrong(r *envoytest.Rig) string {
	for range v.times - 1 {
		_, _, _, _ = v.ask(r)
	}
	status, header, body, err := v.ask(r)
	if err != nil {
		return err.Error()
	}
	if status != v.status {
		return fmt.Sprintf("status %d, want %d; %s", status, v.status, body)
	}
	var s seen
	_ = json.Unmarshal(body, &s)
	for _, w := range v.want {
		got := map[string]string{"backend": s.Backend, "uri": s.URI, "host": s.Host, "proto": s.Proto, "location": header.Get("Location")}[w[0]]
		if name, ok := strings.CutPrefix(w[0], "header."); ok {
			got = s.Header.Get(name)
		}
		if w[0] == "cookie" {
			var cookies []string
			for _, c := range header.Values("Set-Cookie") {
				cookies = append(cookies, cookieValue.ReplaceAllString(strings.ReplaceAll(c, " ", "_"), `$1=*`))
			}
			got = strings.Join(cookies, "|")
		}
		if name, ok := strings.CutPrefix(w[0], "answer."); ok {
			got = strings.ReplaceAll(strings.Join(header.Values(name), "|"), " ", "_")
		}
		if want := strings.TrimPrefix(w[1], "-"); got != want {
			return fmt.Sprintf("%s is %q, want %q", w[0], got, want)
		}
	}
	return ""
}

// ask sends exactly this request, on a connection of its own.
func (v vector) ask(r *envoytest.Rig) (status int, header http.Header, body []byte, err error) {
	address := r.Settings.HTTP
	if v.url.Scheme == "https" {
		address = r.Settings.HTTPS
	}
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		return 0, nil, nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if v.url.Scheme == "https" {
		config := &tls.Config{ServerName: strings.TrimPrefix(cmp.Or(v.sni, v.url.Hostname()), "-"), InsecureSkipVerify: true}
		v.people.show(config, v.client)
		conn = tls.Client(conn, config)
	}
	go v.send(conn)
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	if secure, ok := conn.(*tls.Conn); ok {
		resp.Header.Set("Test-Certificate", secure.ConnectionState().PeerCertificates[0].Subject.CommonName)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		sent := bytes.Repeat([]byte("x"), v.body)
		go func() { _, _ = conn.Write(sent) }()
		_, err = io.ReadFull(reader, sent)
		return resp.StatusCode, resp.Header, nil, err
	}
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, body, err
}

// send writes the request. What Envoy does not read any more is not an error: its answer decides.
func (v vector) send(conn net.Conn) {
	var b bytes.Buffer
	target := v.url.RequestURI()
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", v.method, target, v.url.Host)
	fmt.Fprintf(&b, "Test-Id: %d\r\n", testID.Add(1))
	for _, h := range v.header {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	switch {
	case v.upgrade:
		fmt.Fprint(&b, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	case v.chunked:
		fmt.Fprint(&b, "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
	case v.unfinished:
		fmt.Fprint(&b, "Connection: close\r\nContent-Length: 1000000\r\n\r\n")
	case v.body > 0:
		fmt.Fprintf(&b, "Connection: close\r\nContent-Length: %d\r\n\r\n", v.body)
	default:
		fmt.Fprint(&b, "Connection: close\r\n\r\n")
	}
	if _, err := conn.Write(b.Bytes()); err != nil || v.upgrade {
		return
	}
	if !v.chunked {
		_, _ = conn.Write(bytes.Repeat([]byte("x"), v.body))
		return
	}
	for left := v.body; left > 0; left -= 1000 {
		if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", min(left, 1000), strings.Repeat("x", min(left, 1000))); err != nil {
			return
		}
	}
	fmt.Fprint(conn, "0\r\n\r\n")
}
