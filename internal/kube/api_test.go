package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/model"
)

const crds = "../../charts/hythe/crds"

func testLog(t testing.TB) *slog.Logger {
	level := slog.LevelInfo
	if os.Getenv("HYTHE_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level}))
}

// newServer runs an API server with Hythe's custom resources, the examples and testdata/api.
func newServer(t *testing.T) *kubetest.Server {
	t.Helper()
	s := kubetest.Start(t)
	s.InstallCRDs(crds)
	s.CreateFiles("testdata/api")
	s.CreateFiles("../../examples") // as in file mode, what stands in the state is not replaced
	return s
}

// A follower runs an API and remembers its Snapshots.
type follower struct {
	t    *testing.T
	api  *API
	stop func()

	mu   sync.Mutex
	all  []*model.Snapshot
	more chan struct{}
}

func follow(t *testing.T, config *rest.Config, options APIOptions) *follower {
	t.Helper()
	api, err := NewAPI(config, options, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, api: api, more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Run(ctx, f.handle) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(f.stop)
	return f
}

func (f *follower) handle(s *model.Snapshot) {
	f.mu.Lock()
	f.all = append(f.all, s)
	f.mu.Unlock()
	select {
	case f.more <- struct{}{}:
	default:
	}
}

func (f *follower) snapshots() []*model.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

// until waits for a Snapshot with a property and returns it.
func (f *follower) until(what string, is func(*model.Snapshot) bool) *model.Snapshot {
	f.t.Helper()
	timeout := time.After(40 * time.Second)
	for {
		if all := f.snapshots(); len(all) > 0 && is(all[len(all)-1]) {
			return all[len(all)-1]
		}
		select {
		case <-f.more:
		case <-timeout:
			f.t.Fatalf("no Snapshot in 40 s with %s", what)
		}
	}
}

func anySnapshot(*model.Snapshot) bool { return true }

// hasService is the property that a Service of the namespace default exists.
func hasService(name string) func(*model.Snapshot) bool {
	return func(s *model.Snapshot) bool {
		return s.Services.Get(model.Key{Namespace: "default", Name: name}) != nil
	}
}

func service(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{port: 80}]}\n", name)
}

// dump writes what the API server has into files, as kubectl get -o yaml would.
func dump(t *testing.T, s *kubetest.Server) string {
	t.Helper()
	dir := t.TempDir()
	for _, kind := range AllKinds() {
		r, _ := client.ResourceOf(kind)
		code, body := s.Do(http.MethodGet, kubetest.Path(r.GV.String(), kind, "", ""), nil)
		if code != http.StatusOK {
			t.Fatalf("list %s: %d", kind, code)
		}
		var list struct {
			Items []map[string]any `json:"items"`
		}
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		var out []byte
		for _, item := range list.Items {
			item["apiVersion"], item["kind"] = r.GV.String(), kind
			data, err := json.Marshal(item)
			if err != nil {
				t.Fatal(err)
			}
			out = fmt.Appendf(out, "---\n%s\n", data)
		}
		write(t, filepath.Join(dir, kind+".yaml"), string(out))
	}
	return dir
}

// trimAll trims the objects of a Snapshot that was read from files.
func trimAll(s *model.Snapshot) {
	for _, o := range s.Ingresses.All() {
		trim(o, true)
	}
	for _, o := range s.IngressClasses {
		trim(o, true)
	}
	for _, o := range s.Services.All() {
		trim(o, true)
	}
	for key, o := range s.Secrets.All() {
		if trim(o, true); !used(o) {
			s.Secrets = s.Secrets.Without(key)
		}
	}
	for _, o := range s.Pools {
		trim(o, true)
	}
	for _, o := range s.Claims {
		trim(o, true)
	}
	for _, o := range s.Reports {
		trim(o, true)
	}
}

// compareSnapshots tells differences, without those of representation that mean nothing (nil and empty).
func compareSnapshots(t *testing.T, what string, got, want *model.Snapshot) {
	t.Helper()
	if d := cmp.Diff(snapshotJSON(t, want), snapshotJSON(t, got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func snapshotJSON(t *testing.T, s *model.Snapshot) string {
	t.Helper()
	form := map[string]any{
		"nodes": s.Nodes, "classes": s.IngressClasses, "pools": s.Pools, "claims": s.Claims, "reports": s.Reports, "problems": s.Problems,
		"ingresses": byString(s.Ingresses), "services": byString(s.Services), "endpoints": byString(s.Endpoints), "secrets": byString(s.Secrets),
	}
	data, err := json.MarshalIndent(form, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func byString[V any](m model.Objects[V]) map[string]V {
	out := map[string]V{}
	for k, v := range m.All() {
		out[k.String()] = v
	}
	return out
}

// TestAPIEqualsFiles checks that the same objects make the same Snapshot, whether they come from files or from the
// API server.
func TestAPIEqualsFiles(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	config := s.Config()
	var types sync.Map // content types, by path
	config.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			if err == nil {
				types.Store(r.URL.Path, response.Header.Get("Content-Type")+" "+r.URL.Query().Get("allowWatchBookmarks"))
			}
			return response, err
		})
	}
	f := follow(t, config, APIOptions{Kinds: AllKinds(), Status: true, OpaqueSecrets: true})
	got := f.until("anything", anySnapshot)
	for _, kind := range AllKinds() {
		r, _ := client.ResourceOf(kind)
		want := "application/vnd.kubernetes.protobuf;stream=watch true"
		if r.GV == v1alpha1.GroupVersion {
			want = "application/json true"
		}
		if got, _ := types.Load(kubetest.Path(r.GV.String(), kind, "", "")); got != want {
			t.Errorf("%s came as %q, want %q", kind, got, want)
		}
	}

	want, err := Load(dump(t, s))
	if err != nil {
		t.Fatal(err)
	}
	trimAll(want)
	compareSnapshots(t, "API and files", got, want)
	for key := range want.Services.All() {
		if !reflect.DeepEqual(got.Services.Get(key), want.Services.Get(key)) {
			t.Errorf("Service %s differs by more than text: %s", key, cmp.Diff(want.Services.Get(key), got.Services.Get(key)))
		}
	}
	// What no default of the API server touches is as people wrote it.
	written, err := Load("../../examples", "testdata/api")
	if err != nil {
		t.Fatal(err)
	}
	web := model.Key{Namespace: "shop", Name: "web"}
	if !reflect.DeepEqual(got.Endpoints.Get(web), written.Endpoints.Get(web)) {
		t.Errorf("endpoints: %s", cmp.Diff(written.Endpoints.Get(web), got.Endpoints.Get(web)))
	}
	if n := len(got.Endpoints.Get(web).Ports[0].Endpoints); n != 4 {
		t.Errorf("%d endpoints, want 4", n)
	}
	if !slices.Equal(got.Nodes["n1"].PodCIDRs, written.Nodes["n1"].PodCIDRs) || !slices.Equal(got.Nodes["n1"].Addresses, written.Nodes["n1"].Addresses) {
		t.Errorf("Node: %+v, want %+v", got.Nodes["n1"], written.Nodes["n1"])
	}
	for _, name := range []string{"shop-tls", "old-tls", "password"} {
		key := model.Key{Namespace: "shop", Name: name}
		if secret, want := got.Secrets.Get(key), name != "password"; (secret != nil) != want || want && len(secret.Data) != 2 {
			t.Errorf("Secret %s = %v", name, secret != nil)
		}
	}

	t.Run("only TLS Secrets", func(t *testing.T) {
		f := follow(t, s.Config(), APIOptions{Kinds: []string{"Secret"}})
		if got := f.until("anything", anySnapshot); got.Secrets.Len() != 1 {
			t.Errorf("%d Secrets, want only the one of type kubernetes.io/tls", got.Secrets.Len())
		}
	})
	t.Run("headless slices", func(t *testing.T) { testHeadless(t, s, f) })
	t.Run("changes", func(t *testing.T) { testChanges(t, s, f) })
	t.Run("storm", func(t *testing.T) { testStorm(t, s, f) })
}

// testChanges checks that each change arrives, shares what did not change, and that no change is none.
func testChanges(t *testing.T, s *kubetest.Server, f *follower) {
	before := f.until("anything", anySnapshot)
	shop := model.Key{Namespace: "shop", Name: "web"}
	cart := model.Key{Namespace: "shop", Name: "cart"}
	s.Apply(`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}},
addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.244.1.7]}]}`)
	after := f.until("endpoints of cart", func(s *model.Snapshot) bool { return s.Endpoints.Get(cart) != nil })
	if before.Endpoints.Get(shop) != after.Endpoints.Get(shop) {
		t.Error("the endpoints of another Service were made anew")
	}
	if before.Endpoints.Get(cart) != nil {
		t.Error("an old Snapshot was changed")
	}
	if !before.Services.Same(after.Services) {
		t.Error("the map of Services was copied, though none changed")
	}
	// A heartbeat of a Node and a label of a slice are no change.
	n := len(f.snapshots())
	s.Do(http.MethodPatch, "/api/v1/nodes/n1/status", []byte(`{"status":{"conditions":[{"type":"Ready","status":"True","reason":"again","lastHeartbeatTime":"2026-02-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`))
	s.Do(http.MethodPatch, kubetest.Path("discovery.k8s.io/v1", "EndpointSlice", "shop", "web-1"), []byte(`{"metadata":{"labels":{"other":"value"}}}`))
	s.Delete("discovery.k8s.io/v1", "EndpointSlice", "shop", "cart-1")
	f.until("no endpoints of cart", func(s *model.Snapshot) bool { return s.Endpoints.Get(cart) == nil })
	if more := len(f.snapshots()) - n; more != 1 {
		t.Errorf("%d Snapshots after one real change, want 1", more)
	}
}

// testHeadless labels an EndpointSlice as headless: who serves Services knows it no more, who serves Ingresses does.
func testHeadless(t *testing.T, s *kubetest.Server, f *follower) {
	key := model.Key{Namespace: "shop", Name: "bare"}
	has := func(want bool) func(*model.Snapshot) bool {
		return func(s *model.Snapshot) bool { return s.Endpoints.Get(key) != nil == want }
	}
	const slice = `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: bare-1, namespace: shop, labels: {kubernetes.io/service-name: bare}},
addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.244.1.8]}]}`
	s.Apply(slice)
	proxied := follow(t, s.Config(), APIOptions{Kinds: NodeKinds(), Proxied: true})
	proxied.until("endpoints", has(true))
	f.until("endpoints", has(true))
	s.Do(http.MethodPatch, kubetest.Path("discovery.k8s.io/v1", "EndpointSlice", "shop", "bare-1"), []byte(`{"metadata":{"labels":{"service.kubernetes.io/headless":""}}}`))
	proxied.until("no endpoints of a headless slice", has(false))
	again := follow(t, s.Config(), APIOptions{Kinds: NodeKinds(), Proxied: true})
	if got := again.until("anything", anySnapshot); !has(false)(got) {
		t.Error("a headless slice is listed")
	}
	if !has(true)(f.until("anything", anySnapshot)) {
		t.Error("a headless slice is not there for Ingresses")
	}
	s.Delete("discovery.k8s.io/v1", "EndpointSlice", "shop", "bare-1")
	f.until("no endpoints", has(false))
}

// testStorm checks that many changes make few Snapshots, and that the last one holds all.
func testStorm(t *testing.T, s *kubetest.Server, f *follower) {
	n := len(f.snapshots())
	start := time.Now()
	const count = 200
	for i := range count {
		s.Apply(service(fmt.Sprintf("storm-%d", i)))
	}
	f.until("all Services", hasService(fmt.Sprintf("storm-%d", count-1)))
	took := time.Since(start)
	if most := int(took/f.api.options.Interval) + 2 + burst; len(f.snapshots())-n > most {
		t.Errorf("%d Snapshots in %s, want at most %d", len(f.snapshots())-n, took, most)
	}
	got := f.until("anything", anySnapshot)
	want, err := Load(dump(t, s))
	if err != nil {
		t.Fatal(err)
	}
	trimAll(want)
	compareSnapshots(t, "after the storm", got, want)
}

// TestAPILost checks what happens when the API server is away: the last Snapshot stays, and nothing is taken away when
// it returns.
func TestAPILost(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	proxy := kubetest.NewProxy(t, s.Addr())
	config := s.Config()
	config.Host = "https://" + proxy.Addr()
	registry := prometheus.NewRegistry()
	f := follow(t, config, APIOptions{Kinds: AllKinds(), Ping: 500 * time.Millisecond, Registerer: registry})
	first := f.until("anything", anySnapshot)
	if f.api.Age() != 0 {
		t.Errorf("age %s with a running API server", f.api.Age())
	}

	// never checks that no Snapshot since the nth lost something that was in the first.
	never := func(t *testing.T, since int) {
		t.Helper()
		for _, got := range f.snapshots()[since:] {
			if got.Services.Len() < first.Services.Len() || got.Endpoints.Len() < first.Endpoints.Len() || len(got.Nodes) < len(first.Nodes) ||
				got.Ingresses.Len() < first.Ingresses.Len() || len(got.Claims) < len(first.Claims) {
				t.Fatal("a Snapshot lacks objects that were never deleted")
			}
		}
	}
	t.Run("restarted", func(t *testing.T) {
		n := len(f.snapshots())
		s.StopAPI()
		eventually(t, "an age", func() bool { return f.api.Age() > time.Second })
		if len(f.snapshots()) != n {
			t.Error("there was a Snapshot for the loss of the API server")
		}
		s.StartAPI()
		s.Apply(service("after-restart"))
		f.until("the new Service", hasService("after-restart"))
		never(t, n)
		eventually(t, "no age", func() bool { return f.api.Age() == 0 })
	})
	t.Run("frozen", func(t *testing.T) {
		n := len(f.snapshots())
		proxy.Freeze()
		s.Apply(service("while-frozen"))
		start := time.Now()
		// The ping fails after 2 x 500 ms; only then is there something to notice.
		eventually(t, "an age", func() bool { return f.api.Age() > 0 })
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("a dead connection was noticed after %s", took)
		}
		proxy.Refuse() // the connections of before stay dead, new ones work
		proxy.Pass()
		f.until("the new Service", hasService("while-frozen"))
		never(t, n)
	})
	if n, err := registry.Gather(); err != nil || len(n) != 3 {
		t.Errorf("%d metrics: %v", len(n), err)
	}
}

// A gate lets the server end each watch after two seconds. While it is shut all requests are refused, as by a server that
// is away: then a reflector goes on with its watch later. After any other error it lists anew.
type gate struct {
	next http.RoundTripper
	shut atomic.Bool

	mu      sync.Mutex
	refused map[string]bool // paths
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if g.shut.Load() {
		g.mu.Lock()
		g.refused[r.URL.Path] = true
		g.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	query := r.URL.Query()
	if query.Get("watch") == "" {
		return g.next.RoundTrip(r)
	}
	query.Set("timeoutSeconds", "2") // one that ends within a second counts as failed
	r = r.Clone(r.Context())
	r.URL.RawQuery = query.Encode()
	return g.next.RoundTrip(r)
}

// TestAPIHistoryGone checks that a watch that the server cannot go on with, since its history is too short (410),
// becomes a new list, and that this takes nothing away but what was deleted.
func TestAPIHistoryGone(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for i := range 20 {
		s.Apply(service(fmt.Sprintf("stays-%d", i)))
	}
	s.Apply(service("goes"))
	g := &gate{refused: map[string]bool{}}
	config := s.Config()
	config.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		g.next = next
		return g
	}
	f := follow(t, config, APIOptions{Kinds: AllKinds()})
	first := f.until("anything", anySnapshot)
	g.shut.Store(true)
	eventually(t, "all watches ended", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.refused) == len(AllKinds())
	})
	s.Apply(service("while-shut"))
	s.Delete("v1", "Service", "default", "goes")
	s.StopAPI()
	s.Compact()
	s.StartAPI()
	g.shut.Store(false)
	f.until("the new Service", hasService("while-shut"))
	last := f.until("no deleted Service", func(s *model.Snapshot) bool { return !hasService("goes")(s) })
	eventually(t, "all kinds listed again", func() bool {
		return f.api.sum(func(r *replica) int { return r.lists }) >= 2*float64(len(AllKinds()))
	})
	if n := f.api.sum(func(r *replica) int { return r.expired }); n == 0 {
		t.Error("no watch was refused for its age: this test did not see what it is for")
	}
	for _, got := range f.snapshots()[1:] {
		for key := range first.Services.All() {
			if got.Services.Get(key) == nil && key.Name != "goes" {
				t.Fatalf("a Snapshot lacks Service %s, which was never deleted", key)
			}
		}
		if got.Endpoints.Len() != first.Endpoints.Len() || len(got.Nodes) != len(first.Nodes) || len(got.Claims) != len(first.Claims) {
			t.Fatal("a Snapshot lacks objects that were never deleted")
		}
	}
	worlds := map[model.Objects[*corev1.Service]]bool{} // others differ by the Problem that the API server is away
	for _, got := range f.snapshots() {
		worlds[got.Services] = true
	}
	if len(worlds) > 3 {
		t.Errorf("Services changed %d times by two changes", len(worlds)-1)
	}
	if last.Endpoints.Get(model.Key{Namespace: "shop", Name: "web"}) != first.Endpoints.Get(model.Key{Namespace: "shop", Name: "web"}) {
		t.Error("the new list made endpoints anew that did not change")
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 40 s: %s", what)
		}
	}
}

// TestAPICache checks a start while the API server is away.
func TestAPICache(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dir := t.TempDir()
	options := APIOptions{Kinds: NodeKinds(), CacheDir: dir, CacheEvery: 100 * time.Millisecond, CacheAfter: 300 * time.Millisecond}
	f := follow(t, s.Config(), options)
	want := f.until("anything", anySnapshot)
	f.stop()
	data, err := os.ReadFile(filepath.Join(dir, "snapshot.jsonl"))
	if err != nil || strings.Contains(string(data), "Secret") {
		t.Fatalf("cache: %v; with Secrets: %v", err, strings.Contains(string(data), "Secret"))
	}

	s.StopAPI()
	past := time.Now().Add(-10 * time.Minute)
	if err := os.Chtimes(filepath.Join(dir, "snapshot.jsonl"), past, past); err != nil {
		t.Fatal(err)
	}
	f = follow(t, s.Config(), options)
	got := f.until("anything", anySnapshot)
	if len(got.Problems) != 1 || got.Problems[0].Reason != "SnapshotFromCache" {
		t.Errorf("problems: %v", got.Problems)
	}
	if age := f.api.Age(); age < 10*time.Minute {
		t.Errorf("age %s, want ten minutes and more", age)
	}
	cached := *got
	cached.Problems = nil
	compareSnapshots(t, "cache", &cached, want)

	s.StartAPI()
	s.Apply(service("fresh"))
	got = f.until("the new Service", hasService("fresh"))
	if len(got.Problems) != 0 || f.api.cachedAt.Load() != nil {
		t.Errorf("the state of the API server still counts as cached: %v", got.Problems)
	}
	f.stop()

	t.Run("of another cluster", func(t *testing.T) {
		config := s.Config()
		config.Host = "https://127.0.0.1:1"
		f := follow(t, config, options)
		time.Sleep(3 * options.CacheAfter)
		if n := len(f.snapshots()); n != 0 {
			t.Errorf("%d Snapshots from the cache of another API server", n)
		}
	})
}

// TestCacheOfSecrets checks that private keys are kept in memory only.
func TestCacheOfSecrets(t *testing.T) {
	config := &rest.Config{Host: "https://127.0.0.1:1"}
	for _, tt := range []struct {
		dir      string
		inMemory bool
		want     string
	}{
		{t.TempDir(), false, "would hold Secrets"},
		{t.TempDir(), true, "not in memory"},
		{"/dev/shm", true, ""},
	} {
		if tt.want == "" || tt.inMemory {
			if err := inMemory(tt.dir); (err == nil) != (tt.want == "") {
				t.Skipf("this machine's file systems are others than the test needs: %s: %v", tt.dir, err)
			}
		}
		_, err := NewAPI(config, APIOptions{Kinds: GatewayKinds(), CacheDir: tt.dir, CacheInMemory: tt.inMemory}, testLog(t))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("cache in %s, in memory %v: %v", tt.dir, tt.inMemory, err)
		}
	}
}

// TestCacheDamaged checks that half a cache is none.
func TestCacheDamaged(t *testing.T) {
	options := APIOptions{Kinds: NodeKinds(), CacheDir: t.TempDir()}
	c, err := newDiskCache(options, "https://a")
	if err != nil {
		t.Fatal(err)
	}
	objects := []metav1.Object{&corev1.Service{}, &v1alpha1.AddressClaim{}}
	for i, o := range objects {
		setType(o)
		o.SetName(fmt.Sprint("o", i))
	}
	if err := c.store(objects, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, _, err := c.load(); err != nil || len(got) != 2 {
		t.Fatalf("%d objects: %v", len(got), err)
	}
	whole, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 10, len(whole) / 2, len(whole) - 3} {
		if err := os.WriteFile(c.path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := c.load(); err == nil {
			t.Errorf("the first %d bytes of a cache were taken: %d objects", n, len(got))
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
