package charts_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/charts"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/kubetest"
)

// A right is one verb on one resource: "update services/status".
type right string

// A recorder is an API server for one user, whose requests it notes.
type recorder struct {
	mu   sync.Mutex
	used map[right]bool
	*httptest.Server
}

func newRecorder(t *testing.T, s *kubetest.Server, user string) *recorder {
	r := &recorder{used: map[right]bool{}}
	target, err := url.Parse("https://" + s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	admin, err := client.Connect(s.Config(), 0)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: admin.HTTP.Transport, FlushInterval: -1, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Header.Set("Impersonate-User", user)
	}}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Query().Get("sendInitialEvents") != "" { // as a server without WatchList (KEP-3157): lists are asked for
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
			return
		}
		r.note(request)
		proxy.ServeHTTP(w, request)
	}))
	r.EnableHTTP2 = true
	r.StartTLS()
	t.Cleanup(func() {
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

// note reads the verb and the resource of a request (Kubernetes API concepts).
func (r *recorder) note(request *http.Request) {
	parts := strings.Split(strings.Trim(request.URL.Path, "/"), "/")
	skip := 2 // api/v1
	if parts[0] == "apis" {
		skip = 3
	}
	if len(parts) <= skip {
		return
	}
	parts = parts[skip:]
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	verb := map[string]string{http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[request.Method]
	switch {
	case verb != "":
	case request.URL.Query().Get("watch") != "":
		verb = "watch"
	case len(parts) > 1:
		verb = "get"
	default:
		verb = "list"
	}
	resource := parts[0]
	if len(parts) > 2 {
		resource += "/" + parts[2]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used[right(verb+" "+resource)] = true
}

func (r *recorder) missing(rights []right) []right {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(rights), func(want right) bool { return r.used[want] })
}

// kubeconfig leads to the recorder.
func (r *recorder) kubeconfig(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}], "+
		"clusters: [{name: a, cluster: {server: %q, insecure-skip-tls-verify: true}}], users: [{name: a, user: {token: a}}]}", r.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rightsOf reads what files/roles.yaml gives to a user.
func rightsOf(t *testing.T, user string) []right {
	var out []right
	for _, o := range objects(t, string(charts.Roles())) {
		var role struct {
			Rules []struct{ Resources, Verbs []string }
		}
		data, err := yaml.Marshal(o.Object)
		if err == nil {
			err = yaml.Unmarshal(data, &role)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					if o.GetName() == user {
						out = append(out, right(verb+" "+resource))
					}
				}
			}
		}
	}
	return slices.Compact(out)
}

// TestRights runs the real processes with the chart's roles through a day of a cluster. Each right that a role gives must
// have been needed: without it that request is refused.
func TestRights(t *testing.T) {
	s := kubetest.Start(t)
	s.InstallCRDs("hythe/crds")
	s.CreateFiles("hythe/files")
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", dir+"/", "../cmd/hythe").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.Apply("{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}], conditions: [{type: NetworkUnavailable, status: 'True', reason: NoRouteCreated}]}}")
	s.Apply("{apiVersion: hythe.dev/v1alpha1, kind: AddressPool, metadata: {name: edge}, spec: {addresses: [203.0.113.1-203.0.113.9, 203.0.113.1]}}")
	recorders := map[string]*recorder{}
	for _, user := range []string{"hythe-controller", "hythe-gateway", "hythe-node"} {
		recorders[user] = newRecorder(t, s, user)
		s.Apply(fmt.Sprintf(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: %[1]s},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[1]s}, subjects: [{kind: User, name: %[1]s}]}`, user))
	}
	s.Apply(`{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: hythe-controller},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: hythe-controller}, subjects: [{kind: User, name: hythe-controller}]}`)
	start := func(user string, args ...string) (stop func()) {
		cmd := exec.Command(filepath.Join(dir, "hythe"), append(args, "--kubeconfig", recorders[user].kubeconfig(t))...)
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop = sync.OnceFunc(func() {
			_ = cmd.Process.Signal(os.Interrupt)
			_ = cmd.Wait()
		})
		t.Cleanup(stop)
		return stop
	}
	controller := func() func() {
		return start("hythe-controller", "controller", "--namespace", "default", "--gateway-service", "default/gateway", "--admin", "unix:"+dir+"/controller")
	}
	until := func(user string, rights ...right) {
		t.Helper()
		for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			missing := recorders[user].missing(rights)
			if len(missing) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%s may do what it did not in 40 s: %q", user, missing)
				return
			}
		}
	}
	stop := controller()
	others := func() (stop func()) {
		g := start("hythe-gateway", "gateway", "--node", "n1", "--xds-socket", dir+"/xds.sock", "--admin", "unix:"+dir+"/gateway")
		n := start("hythe-node", "node", "--node", "n1", "--without-proxy", "--without-lb", "--overlay", "none", "--cni-conf-dir", "",
			"--data", dir+"/data", "--run", dir+"/run", "--admin", "unix:"+dir+"/node")
		return func() { g(); n() }
	}
	stopOthers := others()
	service := func(name, more string) {
		s.Apply(fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s, annotations: {a: b%s}}, spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}}", name, more))
	}
	service("gateway", "")
	until("hythe-controller", "create addressclaims", "update services/status", "update addresspools/status", "create events")
	// Its address is a gateway's, and no gateway serves it.
	s.Apply("{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a}, spec: {ingressClassName: other, defaultBackend: {service: {name: a, port: {number: 80}}}}, status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}}")
	until("hythe-controller", "update ingresses/status")
	stop()
	stop = controller() // what it told before is counted up
	until("hythe-controller", "get events", "patch events", "get leases", "update leases")
	// A claim names a Service that is gone, too; Reports are not as their processes left them.
	if code, body := s.Do(http.MethodPatch, kubetest.Path("hythe.dev/v1alpha1", "AddressClaim", "", "203.0.113.1"), []byte(`{"spec":{"services":[{"namespace":"default","name":"gateway"},{"namespace":"default","name":"gone"}]}}`)); code != http.StatusOK {
		t.Errorf("%d: %s", code, body)
	}
	until("hythe-controller", "update addressclaims")
	until("hythe-gateway", "create reports")
	until("hythe-node", "create reports")
	stopOthers()
	for _, component := range []string{"gateway", "node"} {
		s.Apply(fmt.Sprintf("{apiVersion: hythe.dev/v1alpha1, kind: Report, metadata: {name: %[1]s-n1}, component: %[1]s, node: n1, ready: true, network: %[2]t, problems: [{kind: A, name: b, reason: C, message: d}]}", component, component == "node"))
	}
	until("hythe-controller", "patch nodes/status")
	others()
	until("hythe-gateway", "update reports")
	until("hythe-node", "update reports")
	stop()
	release := exec.Command(filepath.Join(dir, "hythe"), "controller", "release", "--namespace", "default", "--gateway-service", "default/gateway",
		"--kubeconfig", recorders["hythe-controller"].kubeconfig(t))
	if out, err := release.CombinedOutput(); err != nil {
		t.Errorf("release: %v\n%s", err, out)
	}
	for _, user := range []string{"hythe-controller", "hythe-gateway", "hythe-node"} {
		until(user, rightsOf(t, user)...)
	}
}
