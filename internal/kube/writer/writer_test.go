package writer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/rest"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/lb"
)

// bindRoles installs the roles of the chart and gives them to users of the same names.
func bindRoles(s *kubetest.Server) {
	s.CreateFiles("../../../charts/hythe/files")
	for _, name := range []string{"hythe-controller", "hythe-gateway", "hythe-node"} {
		s.Apply(fmt.Sprintf(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: %[1]s},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[1]s}, subjects: [{kind: User, name: %[1]s}]}`, name))
	}
	s.Apply(`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: hythe-controller},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: hythe-controller}, subjects: [{kind: User, name: hythe-controller}]}`)
}

// desired is what lb.Build decides, as the controller hands it to a Writer.
func desired(s *model.Snapshot) Desired {
	gateway := model.Key{Namespace: "hythe-system", Name: "gateway"}
	state, problems := lb.Build(s, lb.Settings{GatewayService: gateway, Shared: true})
	d := Desired{
		GatewayService: gateway, Finalizers: map[model.Key]bool{},
		Claims: state.Claims, Problems: problems, Services: map[model.Key][]corev1.LoadBalancerIngress{},
		Ingresses: map[model.Key][]networkingv1.IngressLoadBalancerIngress{}, Pools: map[string]v1alpha1.AddressPoolStatus{},
	}
	for _, o := range state.Services {
		d.Services[o.Service], d.Finalizers[o.Service] = o.Ingress, o.Finalizer
		if o.Yielded {
			d.Yielded = append(d.Yielded, o.Service)
		}
	}
	for _, o := range state.Ingresses {
		d.Ingresses[o.Ingress] = o.Addresses
	}
	for _, o := range state.Pools {
		d.Pools[o.Pool] = o.Status
	}
	return d
}

// runController runs what the controller does, until the test ends or the returned function is called.
func runController(t *testing.T, config *rest.Config, sets *atomic.Int64) (stop func()) {
	t.Helper()
	writer, err := New(config, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	snapshots := run.NewLatest[*model.Snapshot]()
	api, err := kube.NewAPI(config, kube.APIOptions{Kinds: kube.ControllerKinds(), Status: true}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = api.Run(ctx, snapshots.Put) })
	group.Go(func() {
		_ = run.Sink(ctx, snapshots, nil, "test", func(ctx context.Context, s *model.Snapshot) error {
			defer sets.Add(1)
			s = writer.Current(s)
			_, err := writer.Set(ctx, s, desired(s))
			if err != nil && ctx.Err() == nil {
				t.Logf("set: %v", err)
			}
			return err
		})
	})
	stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func loadBalancer(name string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: %s},
spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}}`, name)
}

// serviceIP is the address in the status of a Service in the namespace default.
func serviceIP(s *kubetest.Server, name string) string {
	data, _ := json.Marshal(s.Get("v1", "Service", "default", name).Object["status"])
	var status corev1.ServiceStatus
	_ = json.Unmarshal(data, &status)
	if in := status.LoadBalancer.Ingress; len(in) == 1 {
		return in[0].IP
	}
	return ""
}

func ingressIPs(s *kubetest.Server, namespace, name string) string {
	data, _ := json.Marshal(s.Get("networking.k8s.io/v1", "Ingress", namespace, name).Object["status"])
	var status networkingv1.IngressStatus
	_ = json.Unmarshal(data, &status)
	var ips []string
	for _, i := range status.LoadBalancer.Ingress {
		ips = append(ips, i.IP)
	}
	return strings.Join(ips, " ")
}

// versions are the resource versions of everything that a controller could write.
func versions(t *testing.T, s *kubetest.Server) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, kind := range []string{"Ingress", "Service", "AddressPool", "AddressClaim", "Event"} {
		version := "v1"
		if r, ok := client.ResourceOf(kind); ok {
			version = r.GV.String()
		}
		_, body := s.Do(http.MethodGet, kubetest.Path(version, kind, "", ""), nil)
		var list struct {
			Items []struct {
				Metadata struct{ Namespace, Name, ResourceVersion string }
			}
		}
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		for _, i := range list.Items {
			out[kind+" "+i.Metadata.Namespace+"/"+i.Metadata.Name] = i.Metadata.ResourceVersion
		}
	}
	return out
}

// TestWriter runs a controller with the chart's role against a real API server.
func TestWriter(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	bindRoles(s)
	s.Apply(loadBalancer("one"))
	s.Apply(`{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: foreign}, spec: {ingressClassName: other,
defaultBackend: {service: {name: one, port: {number: 80}}}}, status: {loadBalancer: {ingress: [{ip: 198.51.100.7}]}}}`)
	// An ingress controller of another kind, behind an address of ours, says so.
	s.Apply(`{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: behind}, spec: {ingressClassName: other,
defaultBackend: {service: {name: one, port: {number: 80}}}}, status: {loadBalancer: {ingress: [{ip: 203.0.113.11}]}}}`)
	config := s.ConfigFor("hythe-controller")
	var sets atomic.Int64
	stop := runController(t, config, &sets)

	eventually(t, "an address of Service one", func() bool { return serviceIP(s, "one") != "" })
	ip := serviceIP(s, "one")
	claim := s.Get(v1alpha1.APIVersion, "AddressClaim", "", ip)
	if ip != "203.0.113.11" || claim.GetName() != ip {
		t.Errorf("address %s, claim %s; want 203.0.113.11, the next free one", ip, claim.GetName())
	}
	eventually(t, "the address of Ingress shop, which a Report names", func() bool { return ingressIPs(s, "shop", "shop") == "203.0.113.10" })
	if ips := ingressIPs(s, "blog", "blog"); ips != "" {
		t.Errorf("Ingress blog, which no Report names, has %s", ips)
	}

	outer := t
	t.Run("writes on change only", func(t *testing.T) {
		quiet(t, s)
		before, n := versions(t, s), sets.Load()
		s.Apply(`{apiVersion: hythe.dev/v1alpha1, kind: Report, metadata: {name: node-n1}, component: node, node: n1, ready: true}`)
		eventually(t, "a Set", func() bool { return sets.Load() > n })
		stop()
		sets.Store(0)
		stop = runController(outer, config, &sets) // a restart
		eventually(t, "a Set after the restart", func() bool { return sets.Load() > 0 })
		for object, version := range versions(t, s) {
			if before[object] != version {
				t.Errorf("%s was written: %q, then %q", object, before[object], version)
			}
		}
	})
	t.Run("keeps what others wrote", func(t *testing.T) {
		s.Do(http.MethodPatch, kubetest.Path("v1", "Service", "default", "one")+"/status", []byte(
			`{"status":{"conditions":[{"type":"Theirs","status":"True","reason":"a","message":"b","lastTransitionTime":"2026-01-01T00:00:00Z"}],"loadBalancer":{"ingress":[]}}}`))
		eventually(t, "the address again", func() bool { return serviceIP(s, "one") == ip })
		if object := s.Get("v1", "Service", "default", "one"); !strings.Contains(fmt.Sprint(object.Object["status"]), "Theirs") {
			t.Errorf("the condition of another controller is gone: %v", object.Object["status"])
		}
		if ips := ingressIPs(s, "default", "foreign"); ips != "198.51.100.7" {
			t.Errorf("status of another's Ingress: %q", ips)
		}
		if ips := ingressIPs(s, "default", "behind"); ips != ip {
			t.Errorf("status of an Ingress that another controller serves at our address: %q", ips)
		}
	})
	t.Run("takes the address away", func(t *testing.T) {
		s.Apply(`{apiVersion: hythe.dev/v1alpha1, kind: Report, metadata: {name: gateway-n1}, component: gateway, node: n1, ready: true, ingresses: []}`)
		eventually(t, "Ingress shop without address", func() bool { return ingressIPs(s, "shop", "shop") == "" })
		s.Delete("v1", "Service", "default", "one")
		eventually(t, "no claim", func() bool {
			code, _ := s.Do(http.MethodGet, kubetest.Path(v1alpha1.APIVersion, "AddressClaim", "", ip), nil)
			return code == http.StatusNotFound
		})
	})
	t.Run("events", func(t *testing.T) { testEvents(t, s, config, &sets) })
	t.Run("many at once", func(t *testing.T) {
		for i := range 7 {
			s.Apply(loadBalancer(fmt.Sprintf("many-%d", i)))
		}
		seen := map[string]string{}
		for i := range 7 {
			name := fmt.Sprintf("many-%d", i)
			eventually(t, "address of "+name, func() bool { return serviceIP(s, name) != "" })
			if other := seen[serviceIP(s, name)]; other != "" {
				t.Errorf("%s and %s share %s", name, other, serviceIP(s, name))
			}
			seen[serviceIP(s, name)] = name
		}
	})
	t.Run("no more rights than needed", func(t *testing.T) { testRights(t, s) })
	t.Run("claims are checked", func(t *testing.T) { testClaimSchema(t, s) })
}

// quiet waits until nothing is written any more.
func quiet(t *testing.T, s *kubetest.Server) {
	t.Helper()
	last := versions(t, s)
	since := time.Now()
	eventually(t, "nothing is written for a second", func() bool {
		now := versions(t, s)
		if fmt.Sprint(now) != fmt.Sprint(last) {
			last, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
}

// testEvents checks that a Problem is one Event, counted up by the next process.
func testEvents(t *testing.T, s *kubetest.Server, config *rest.Config, sets *atomic.Int64) {
	s.Apply(`{apiVersion: v1, kind: Service, metadata: {name: picky, annotations: {hythe.dev/addresses: 192.0.2.99}},
spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}}`)
	uid := string(s.Get("v1", "Service", "default", "picky").GetUID())
	list := func() (found []corev1.Event) {
		var out corev1.EventList
		_, body := s.Do(http.MethodGet, "/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid="+uid, nil)
		if err := json.Unmarshal(body, &out); err != nil {
			t.Fatal(err)
		}
		return out.Items
	}
	eventually(t, "an Event", func() bool { return len(list()) > 0 })
	s.Apply(service("unrelated"))
	quiet(t, s)
	events := list()
	if len(events) != 1 || events[0].Count != 1 || events[0].Reason != lb.ReasonAddressNotInPool || events[0].Type != corev1.EventTypeWarning {
		t.Errorf("events: %+v", events)
	}
	defer runController(t, config, sets)() // as a second process
	eventually(t, "the count of the Event", func() bool { e := list(); return len(e) == 1 && e[0].Count == 2 })
}

// testRights checks the borders of the roles.
func testRights(t *testing.T, s *kubetest.Server) {
	for _, tt := range []struct {
		user, method, path string
		allowed            bool
	}{
		{"hythe-controller", http.MethodGet, "/api/v1/secrets", false},
		{"hythe-controller", http.MethodGet, "/api/v1/services", true},
		{"hythe-controller", http.MethodDelete, "/api/v1/namespaces/default/services/none", false},
		{"hythe-controller", http.MethodGet, "/apis/coordination.k8s.io/v1/namespaces/default/leases/other", false},
		{"hythe-controller", http.MethodDelete, "/apis/hythe.dev/v1alpha1/reports/none", true},
		{"hythe-gateway", http.MethodDelete, "/apis/hythe.dev/v1alpha1/reports/none", false},
		{"hythe-gateway", http.MethodGet, "/api/v1/secrets", true},
		{"hythe-gateway", http.MethodGet, "/api/v1/configmaps", false},
		{"hythe-gateway", http.MethodDelete, "/apis/hythe.dev/v1alpha1/addressclaims/none", false},
		{"hythe-node", http.MethodGet, "/api/v1/secrets", false},
		{"hythe-node", http.MethodGet, "/apis/networking.k8s.io/v1/ingresses", false},
		{"hythe-node", http.MethodGet, "/apis/hythe.dev/v1alpha1/addressclaims", true},
		{"hythe-node", http.MethodDelete, "/apis/hythe.dev/v1alpha1/addressclaims/none", false},
	} {
		asked, err := rest.HTTPClientFor(s.ConfigFor(tt.user))
		if err != nil {
			t.Fatal(err)
		}
		code, _ := s.DoAs(asked, tt.method, tt.path, nil)
		if allowed := code != http.StatusForbidden; allowed != tt.allowed {
			t.Errorf("%s: %s %s: %d, want allowed %v", tt.user, tt.method, tt.path, code, tt.allowed)
		}
	}
	for user, kinds := range map[string][]string{"hythe-gateway": kube.GatewayKinds(), "hythe-node": kube.NodeKinds()} {
		f := follow(t, s.ConfigFor(user), kube.APIOptions{Kinds: kinds})
		f.until("everything that "+user+" watches", anySnapshot)
		f.stop()
		w, err := New(s.ConfigFor(user), testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteReport(t.Context(), v1alpha1.Report{Component: strings.TrimPrefix(user, "hythe-"), Node: "n9"}); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
}

// testClaimSchema checks what the API server itself refuses.
func testClaimSchema(t *testing.T, s *kubetest.Server) {
	for body, want := range map[string]int{
		`{"metadata":{"name":"203.0.113.200"},"spec":{"address":"203.0.113.200","pool":"p","services":[{"namespace":"a","name":"b"}]}}`:                           http.StatusCreated,
		`{"metadata":{"name":"203.0.113.201"},"spec":{"address":"203.0.113.202","pool":"p","services":[{"namespace":"a","name":"b"}]}}`:                           http.StatusUnprocessableEntity,
		`{"metadata":{"name":"203.0.113.203"},"spec":{"address":"203.0.113.203","pool":"p","services":[]}}`:                                                       http.StatusUnprocessableEntity,
		`{"metadata":{"name":"no-address"},"spec":{"address":"no:address","pool":"p","services":[{"namespace":"a","name":"b"}]}}`:                                 http.StatusUnprocessableEntity,
		`{"metadata":{"name":"2001-0db8-0000-0000-0000-0000-0000-0001"},"spec":{"address":"2001:db8::1","pool":"p","services":[{"namespace":"a","name":"b"}]}}`:   http.StatusCreated,
		`{"metadata":{"name":"2001-0db8-0000-0000-0000-0000-0000-0002"},"spec":{"address":"2001:db8:0::2","pool":"p","services":[{"namespace":"a","name":"b"}]}}`: http.StatusUnprocessableEntity,
	} {
		typed := strings.Replace(body, "{", `{"apiVersion":"hythe.dev/v1alpha1","kind":"AddressClaim",`, 1)
		if code, answer := s.Do(http.MethodPost, "/apis/hythe.dev/v1alpha1/addressclaims", []byte(typed)); code != want {
			t.Errorf("%s: %d, want %d: %s", body, code, want, answer)
		}
	}
}

// An interloper runs do before the first request that matches.
type interloper struct {
	next  http.RoundTripper
	match func(*http.Request) bool
	do    func()
	once  sync.Once
}

func (i *interloper) RoundTrip(r *http.Request) (*http.Response, error) {
	if i.match(r) {
		i.once.Do(i.do)
	}
	return i.next.RoundTrip(r)
}

// TestWriterRaces checks what happens when others write at the worst moment.
func TestWriterRaces(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.Apply(loadBalancer("one"))
	f := follow(t, s.Config(), kube.APIOptions{Kinds: kube.ControllerKinds(), Status: true})
	snapshot := f.until("Service one", hasService("one"))

	t.Run("status conflict", func(t *testing.T) {
		config := s.Config()
		var puts, writes atomic.Int64
		config.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
			return &interloper{next: next, match: func(r *http.Request) bool {
				is := r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/services/one/status")
				if is {
					puts.Add(1)
				}
				if r.Method != http.MethodGet {
					writes.Add(1)
				}
				return is
			}, do: func() {
				s.Do(http.MethodPatch, kubetest.Path("v1", "Service", "default", "one"), []byte(`{"metadata":{"labels":{"in":"between"}}}`))
			}}
		}
		w, err := New(config, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Set(t.Context(), snapshot, desired(snapshot)); err != nil {
			t.Fatal(err)
		}
		if serviceIP(s, "one") == "" || puts.Load() != 2 {
			t.Errorf("status %q after %d writes, want an address after 2", serviceIP(s, "one"), puts.Load())
		}
		// A Snapshot from before that shows an older Service now must not lead to another claim for the address.
		early := snapshot.Services.Get(model.Key{Namespace: "default", Name: "one"}).DeepCopy()
		early.Name, early.CreationTimestamp.Time = "early", early.CreationTimestamp.Add(-time.Hour)
		late := *snapshot
		late.Services = snapshot.Services
		late.Services = late.Services.With(model.Key{Namespace: early.Namespace, Name: early.Name}, early)
		d := desired(w.Current(&late))
		if got := fmt.Sprint(d.Services[model.Key{Namespace: "default", Name: "one"}]); !strings.Contains(got, serviceIP(s, "one")) {
			t.Errorf("Service one gets %s in place of %s", got, serviceIP(s, "one"))
		}
		// The same once more writes nothing, though the Snapshot does not show the status yet.
		writes.Store(0)
		if _, err := w.Set(t.Context(), w.Current(snapshot), desired(w.Current(snapshot))); err != nil || writes.Load() != 0 {
			t.Errorf("%d writes of what stands there already: %v", writes.Load(), err)
		}
	})
	t.Run("claimed by another", func(t *testing.T) {
		s.Apply(loadBalancer("two"))
		old := f.until("Service two and the claim of one", func(s *model.Snapshot) bool { return hasService("two")(s) && len(s.Claims) == 2 })
		s.Apply(`{apiVersion: hythe.dev/v1alpha1, kind: AddressClaim, metadata: {name: 203.0.113.12},
spec: {address: 203.0.113.12, pool: edge, services: [{namespace: default, name: other}], announce: [arp]}}`)
		s.Apply(loadBalancer("other"))
		w, err := New(s.Config(), testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		problems, err := w.Set(t.Context(), old, desired(old))
		if err != nil || len(problems) != 1 || problems[0].Reason != ReasonClaimedByAnother {
			t.Fatalf("problems %v: %v", problems, err)
		}
		if ip := serviceIP(s, "two"); ip != "" {
			t.Errorf("Service two got %s, which is another's", ip)
		}
		if services := fmt.Sprint(s.Get(v1alpha1.APIVersion, "AddressClaim", "", "203.0.113.12").Object["spec"]); !strings.Contains(services, "other") {
			t.Errorf("another's claim was changed: %s", services)
		}
		// The next turn takes a free one.
		again := w.Current(f.until("the other's Service", hasService("other")))
		if _, err := w.Set(t.Context(), again, desired(again)); err != nil {
			t.Fatal(err)
		}
		if ip := serviceIP(s, "two"); ip != "203.0.113.13" {
			t.Errorf("Service two got %q, want 203.0.113.13", ip)
		}
	})
	t.Run("a status that cannot be written keeps the claim", func(t *testing.T) {
		config := s.Config()
		config.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/status") {
					return nil, errors.New("no")
				}
				return next.RoundTrip(r)
			})
		}
		now := f.until("the claim of two", func(s *model.Snapshot) bool {
			return s.Claims["203.0.113.13"] != nil && len(s.Services.Get(model.Key{Namespace: "default", Name: "two"}).Status.LoadBalancer.Ingress) == 1
		})
		d := desired(now)
		d.Claims = d.Claims[:len(d.Claims)-1]
		d.Services[model.Key{Namespace: "default", Name: "two"}] = nil
		w, err := New(config, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Set(t.Context(), now, d); err == nil {
			t.Error("no error")
		}
		s.Get(v1alpha1.APIVersion, "AddressClaim", "", "203.0.113.13")
	})
}

// TestWriteReport checks that a Report is written on change only.
func TestWriteReport(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t)
	s.InstallCRDs(crds)
	var writes atomic.Int64
	config := s.Config()
	config.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet {
				writes.Add(1)
			}
			return next.RoundTrip(r)
		})
	}
	report := v1alpha1.Report{Component: "node", Node: "n1", Ready: true, Addresses: []string{"203.0.113.10"}}
	for process, want := range []int64{1, 1, 2} {
		w, err := New(config, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		report.Ready = process < 2
		for range 3 {
			if err := w.WriteReport(t.Context(), report); err != nil {
				t.Fatal(err)
			}
		}
		if got := writes.Load(); got != want {
			t.Errorf("%d writes by process %d and those before, want %d", got, process, want)
		}
	}
	if got := s.Get(v1alpha1.APIVersion, "Report", "", "node-n1"); got.Object["ready"] != false || fmt.Sprint(got.Object["addresses"]) != "[203.0.113.10]" {
		t.Errorf("Report: %v", got.Object)
	}
}

// TestLead checks that of two controllers one leads, that the other follows within seconds when it ends, and that a
// leader who cannot reach the API server stops before another could start.
func TestLead(t *testing.T) {
	t.Parallel()
	s := kubetest.Start(t)
	s.InstallCRDs(crds)
	bindRoles(s)
	proxy := kubetest.NewProxy(t, s.Addr())
	var leading atomic.Int64
	type candidate struct {
		name string
		led  chan struct{}
		lost chan struct{}
		stop context.CancelFunc
		done chan error
	}
	compete := func(name string, config *rest.Config) *candidate {
		c := &candidate{name: name, led: make(chan struct{}, 8), lost: make(chan struct{}, 8), done: make(chan error, 1)}
		w, err := New(config, testLog(t))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		c.stop = cancel
		go func() {
			c.done <- w.Lead(ctx, config, "default", name, func(ctx context.Context) error {
				if n := leading.Add(1); n != 1 {
					t.Errorf("%d leaders at once", n)
				}
				c.led <- struct{}{}
				<-ctx.Done()
				leading.Add(-1)
				c.lost <- struct{}{}
				return nil
			})
		}()
		t.Cleanup(cancel)
		return c
	}
	within := func(what string, c chan struct{}, d time.Duration) {
		t.Helper()
		start := time.Now()
		select {
		case <-c:
			t.Logf("%s after %s", what, time.Since(start).Round(10*time.Millisecond))
		case <-time.After(d):
			t.Fatalf("%s: not within %s", what, d)
		}
	}
	one := compete("one", s.ConfigFor("hythe-controller"))
	within("one leads", one.led, 20*time.Second)
	through := s.ConfigFor("hythe-controller")
	through.Host = "https://" + proxy.Addr()
	two := compete("two", through)
	time.Sleep(3 * time.Second) // two has asked, and must wait
	if len(two.led) != 0 {
		t.Fatal("two leads beside one")
	}
	one.stop()
	if err := <-one.done; err != nil {
		t.Error(err)
	}
	within("two leads when one has ended", two.led, 2*leaseRetry+2*time.Second)
	three := compete("three", s.ConfigFor("hythe-controller"))
	proxy.Freeze()
	within("two notices that it is cut off", two.lost, leaseRenew+time.Second) // the Lease lasts longer
	within("three leads", three.led, 2*leaseDuration)
	proxy.Refuse()
	proxy.Pass()
	time.Sleep(2 * leaseRetry)
	if len(two.led) != 0 {
		t.Error("two leads beside three")
	}
	three.stop()
	if err := <-three.done; err != nil {
		t.Error(err)
	}
	within("two leads again", two.led, 2*leaseRetry+8*time.Second)
	two.stop()
	if err := <-two.done; err != nil {
		t.Error(err)
	}
}
