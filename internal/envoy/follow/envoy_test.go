package follow

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy/dump"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/trace/asked"
)

// A rig is a real Envoy and what reads it.
type rig struct {
	*envoytest.Rig
	reader *dump.Reader
}

func newRig(t *testing.T) *rig {
	r := envoytest.New(t, nil)
	return &rig{r, dump.NewReader(r.Admin)}
}

// set makes Envoy have a Config and returns what the gateway wants then.
func (r *rig) set(t *testing.T, config gateway.Config) Want {
	t.Helper()
	resources, status := r.Set(t, config)
	return Want{Config: config, Resources: &resources, Refused: status.Refused, Node: "n1", Now: time.Now()}
}

func (r *rig) read(t *testing.T) *dump.Config {
	t.Helper()
	c, err := r.reader.Read(t.Context(), dump.What{
		Listeners: dump.AllNames, Hosts: true, Clusters: dump.AllNames, Certificates: dump.AllNames,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// answer is what a client gets.
type answer struct {
	status               int
	endpoints, location  string // endpoints: the name of the set that answered
	certificate, problem string
}

// ask sends exactly this request.
func (r *rig) ask(req Request) (a answer) {
	target := r.Settings.HTTP
	if req.Scheme == "https" {
		target = r.Settings.HTTPS
	}
	var conn net.Conn
	conn, err := net.Dial("tcp", target.String())
	if err != nil {
		return answer{problem: err.Error()}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if req.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: req.ServerName, InsecureSkipVerify: true})
		if err := secure.Handshake(); err != nil {
			return answer{problem: err.Error()}
		}
		a.certificate = secure.ConnectionState().PeerCertificates[0].Subject.CommonName
		conn = secure
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", req.Path, req.Host)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		a.problem = err.Error()
		return a
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	a.status, a.location = resp.StatusCode, resp.Header.Get("Location")
	if name, ok := strings.CutPrefix(string(body), "endpoints "); ok {
		a.endpoints = name
	}
	return a
}

// askUntil asks until the answer is the wanted one, for a while: Envoy acknowledges before each of its workers has a
// configuration, and a new listener warms.
func (r *rig) askUntil(req Request, want answer) answer {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got := r.ask(req)
		if got.location != "" && got.location[0] == '/' || got.status == http.StatusTemporaryRedirect {
			got.location = ""
		}
		if got == want || time.Now().After(deadline) {
			return got
		}
	}
}

// predict is what Follow says that the client gets.
func predict(config *dump.Config, want Want, req Request) answer {
	req.Client = netip.MustParseAddr("127.0.0.1")
	f := Follow(config, want, req)
	a := answer{status: f.Status, location: f.Location}
	if req.Scheme == "https" {
		a.certificate, _, _ = strings.Cut(f.Certificate, " for clients of ") // a copy of the pair under another name
	}
	if f.Status == http.StatusOK {
		a.endpoints = config.Cluster(f.Cluster).Body.GetEdsClusterConfig().GetServiceName()
	}
	if len(a.location) > 0 && a.location[0] == '/' { // Envoy answers with the whole URL in a redirect of its own only
		a.location = ""
	}
	return a
}

// TestFollowIsWhatEnvoyDoes asks a real Envoy and Follow the same things about every configuration that package gateway
// is tested with, and both must answer the same: status, who answered, certificate, place of a redirect.
func TestFollowIsWhatEnvoyDoes(t *testing.T) {
	r := newRig(t)
	count, kinds := 0, map[int]int{}
	golden.Archives(t, "../../../gateway/testdata/*.txtar", func(t *testing.T, archive *golden.Archive) {
		config := build(t, archive)
		want := r.set(t, config)
		have := r.read(t)
		for _, h := range Hosts(have, want) {
			if h.Envoy.State != "in use" && len(want.Refused) == 0 {
				t.Errorf("host %s is %s (%s), though Envoy acknowledged it", h.Host, h.Envoy.State, h.Envoy.Reason)
			}
		}
		for _, req := range requests(config) {
			said := predict(have, want, req)
			got := r.askUntil(req, said)
			count++
			kinds[got.status]++
			if got != said {
				t.Errorf("%s http host %q path %q server name %q:\nEnvoy does  %+v\nFollow says %+v",
					req.Scheme, req.Host, req.Path, req.ServerName, got, said)
			}
			f := Follow(have, want, req)
			for _, hop := range f.Hops {
				if hop.Where != "n1/envoy" || hop.Text == "" || hop.State == asked.Broken && hop.Remedy == "" {
					t.Errorf("hop %+v of %+v lacks a place, a text or a remedy", hop, req)
				}
			}
		}
	})
	for _, status := range []int{200, 307, 308, 403, 404, 421, 503} {
		if kinds[status] == 0 {
			t.Errorf("no request was answered with %d", status)
		}
	}
	t.Logf("count %d requests, by status %v", count, kinds)
}

// requests are some for each host and path, right and nearly right.
func requests(config gateway.Config) []Request {
	hosts := []string{"nobody.test"}
	paths := []string{"/", "/none/of/them", "/a%2fb", "/%61", "/x/..;y/z", "/x/%2e%2e;y/z", "/x/.%3By", "/x/.;y/", "/..;"}
	for _, h := range config.Hosts {
		name := h.Name
		switch {
		case name == gateway.CatchAll:
		case strings.HasPrefix(name, "*."):
			hosts = append(hosts, "a"+name[1:], "a.b"+name[1:], name[2:])
		default:
			hosts = append(hosts, name, strings.ToUpper(name)+".", name+":1234", "x."+name)
		}
		for _, route := range h.Routes {
			p := route.Path
			paths = append(paths, p, p+"/", p+"x", p+"/sub?q=1", "/"+p, p+"/../x", "/x/.."+p, strings.Replace(p, "a", "%61", 1))
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	var out []Request
	for i, host := range hosts {
		name := canonicalHost(host)
		for _, path := range paths {
			if strings.ContainsAny(path, " \x7f") || len(path) > 4000 {
				continue
			}
			out = append(out, Request{Scheme: "http", Host: host, Path: path})
			if len(out)%3 == 0 { // a handshake costs more
				out = append(out, Request{Scheme: "https", Host: host, Path: path, ServerName: name})
			}
		}
		other := canonicalHost(hosts[(i+1)%len(hosts)])
		out = append(out, Request{Scheme: "https", Host: host, Path: "/", ServerName: other},
			Request{Scheme: "https", Host: host, Path: "/", ServerName: name})
	}
	return out
}

var pairReference = regexp.MustCompile(`(CERT|KEY)\(([^)]*)\)`)

// build makes a Config of a test case of package gateway, with certificates that are named for what they are, and
// servers in the place of its endpoints.
func build(t *testing.T, archive *golden.Archive) gateway.Config {
	t.Helper()
	dir := t.TempDir()
	chain, key := envoytest.Pair(t, "any")
	for _, file := range archive.Files {
		if !strings.HasSuffix(file.Name, ".yaml") {
			continue
		}
		data := pairReference.ReplaceAllFunc(file.Data, func(ref []byte) []byte {
			which := chain
			if ref[0] == 'K' {
				which = key
			}
			return []byte(base64.StdEncoding.EncodeToString(which))
		})
		if err := os.WriteFile(filepath.Join(dir, file.Name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	snapshot, err := kube.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	config, _ := gateway.Build(snapshot, gateway.Settings{WithoutClass: true, HTTPSPort: 8443, DefaultChain: chain, DefaultKey: key})
	for i := range config.Certificates {
		c := &config.Certificates[i]
		c.Chain, c.Key = envoytest.Pair(t, c.Name)
	}
	for i := range config.EndpointSets {
		s := &config.EndpointSets[i]
		if len(s.Addresses) == 0 {
			continue
		}
		name := s.Name
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "endpoints "+name) }))
		t.Cleanup(backend.Close)
		s.Addresses = []netip.AddrPort{netip.MustParseAddrPort(backend.Listener.Addr().String())}
	}
	slices.SortFunc(config.EndpointSets, func(a, b gateway.EndpointSet) int { return cmp.Compare(a.Name, b.Name) })
	return config
}
