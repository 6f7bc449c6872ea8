package charts_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/kubetest"
)

// TestRights runs the real programs with the roles of the chart. First with all that the roles give: nothing is refused.
// Then once for each verb on each resource in each rule, without that one alone: the program must be refused it, and say
// so. A verb whose loss nobody notices is one too many.
func TestRights(t *testing.T) {
	r := newRights(t)
	t.Run("all", r.whole)
	// Who only reads disturbs nobody, and may take its time to say what it misses: many at once, more than -parallel.
	t.Run("beside each other", func(t *testing.T) {
		var all sync.WaitGroup
		defer all.Wait()
		slots := make(chan struct{}, 16)
		for _, l := range r.losses {
			if !l.alone() {
				all.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					t.Run(l.String(), func(t *testing.T) { r.lose(t, l) })
				})
			}
		}
	})
	t.Run("one by one", func(t *testing.T) {
		for _, l := range r.losses {
			if l.alone() {
				t.Run(l.String(), func(t *testing.T) { r.lose(t, l) })
			}
		}
	})
}

// A loss is one verb on one resource that is taken out of one rule of a role. Its number names what belongs to it.
type loss struct {
	role, kind     string
	rule           int
	verb, resource string
	number         int
}

func (l loss) String() string {
	return fmt.Sprintf("%s/%s/%d/%s %s", l.role, l.kind, l.rule, l.verb, l.resource)
}

// need makes what l's right is for, nil if that is always there.
func (l loss) need() need { return needs[l.role][l.verb+" "+l.resource] }

// alone says that others would do what l's right is for, or undo the need: the cleanup deletes all Reports.
func (l loss) alone() bool { return l.need() != nil && l.role != "hythe-cleanup" }

func (l loss) name() string { return fmt.Sprint("least-", l.number) }

// A need makes that a program has to use a right: it makes objects named after the loss.
type need func(s *kubetest.Server, l loss)

// needs are for rights that are used only if there is something to do.
var needs = map[string]map[string]need{
	"hythe-controller": {
		"get services": service, "update services/status": service, "create addressclaims": service, "create events": service,
		"get ingresses": ingress, "update ingresses/status": ingress,
		"get addresspools": pool, "update addresspools/status": pool,
		"get addressclaims": claim, "delete addressclaims": claim,
		"update addressclaims": sharedClaim,
		// It does so when a node is gone for five minutes; "hythe controller release" is the same request without the wait.
		"delete reports":     report,
		"patch nodes/status": node,
		"get events":         nothing, "patch events": nothing, // of the Problem that "all" left
		"create leases": nothing, "get leases": lease, "update leases": lease,
	},
	"hythe-release": {
		"get services": givenService, "update services/status": givenService,
		"get ingresses": ingress, "update ingresses/status": ingress,
		"get addresspools": pool, "update addresspools/status": pool,
		"get addressclaims": claim, "delete addressclaims": claim, "delete reports": report,
		"create leases": nothing, "get leases": lease, "update leases": lease,
	},
	"hythe-gateway": {"update reports": ownReport},
	"hythe-node":    {"update reports": ownReport},
	"hythe-cleanup": {"list nodes": daemonSet},
	"hythe-definitions": {
		"patch customresourcedefinitions": nothing, "create customresourcedefinitions": noDefinition,
	},
}

func nothing(*kubetest.Server, loss) {}

func service(s *kubetest.Server, l loss) {
	s.Apply(fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}}", l.name()))
}

// givenService has an address already.
func givenService(s *kubetest.Server, l loss) {
	s.Apply(fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s, finalizers: [service.kubernetes.io/load-balancer-cleanup]}, "+
		"spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}, status: {loadBalancer: {ingress: [{ip: 203.0.113.%d}]}}}", l.name(), l.number))
}

// ingress has the gateways' address, and no gateway serves it.
func ingress(s *kubetest.Server, l loss) {
	s.Apply("{apiVersion: hythe.dev/v1alpha1, kind: AddressClaim, metadata: {name: 203.0.113.1}, spec: {address: 203.0.113.1, pool: edge, services: [{namespace: default, name: gateway}], announce: [arp]}}")
	s.Apply(fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: %s}, spec: {ingressClassName: other, "+
		"defaultBackend: {service: {name: a, port: {number: 80}}}}, status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}}", l.name()))
}

func pool(s *kubetest.Server, l loss) {
	s.Apply(fmt.Sprintf("{apiVersion: hythe.dev/v1alpha1, kind: AddressPool, metadata: {name: %s}, spec: {addresses: [198.51.100.%d], autoAssign: false}}", l.name(), l.number))
}

// claim is of a Service that is gone.
func claim(s *kubetest.Server, l loss) {
	address := fmt.Sprint("203.0.113.", 100+l.number)
	s.Apply(fmt.Sprintf("{apiVersion: hythe.dev/v1alpha1, kind: AddressClaim, metadata: {name: %[1]s}, spec: {address: %[1]s, pool: edge, services: [{namespace: default, name: gone}], announce: [arp]}}", address))
}

// sharedClaim is of one that is gone, too.
func sharedClaim(s *kubetest.Server, _ loss) {
	s.Apply("{apiVersion: hythe.dev/v1alpha1, kind: AddressClaim, metadata: {name: 203.0.113.1}, spec: {address: 203.0.113.1, pool: edge, services: [{namespace: default, name: gateway}, {namespace: default, name: gone}], announce: [arp]}}")
}

func report(s *kubetest.Server, l loss) {
	s.Apply(fmt.Sprintf("{apiVersion: hythe.dev/v1alpha1, kind: Report, metadata: {name: node-%[1]s}, component: node, node: %[1]s, ready: true, network: true}", l.name()))
}

// ownReport says other things than its writer would.
func ownReport(s *kubetest.Server, l loss) {
	component := strings.TrimPrefix(l.role, "hythe-")
	s.Apply(fmt.Sprintf("{apiVersion: hythe.dev/v1alpha1, kind: Report, metadata: {name: %[1]s-%[2]s}, component: %[1]s, node: %[2]s, problems: [{kind: A, name: b, reason: C, message: d}]}", component, l.name()))
}

// daemonSet is that of the cleanup, for no node.
func daemonSet(s *kubetest.Server, l loss) {
	s.Apply(fmt.Sprintf("{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: hythe-cleanup, namespace: %s}, "+
		"spec: {selector: {matchLabels: {e: f}}, template: {metadata: {labels: {e: f}}, spec: {containers: [{name: c, image: c}]}}}, "+
		"status: {observedGeneration: 1, currentNumberScheduled: 0, numberMisscheduled: 0, desiredNumberScheduled: 0, numberReady: 0}}", l.name()))
}

func node(s *kubetest.Server, l loss) {
	report(s, l)
	s.Apply(fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s}, status: {conditions: [{type: NetworkUnavailable, status: 'True', reason: NoRouteCreated}]}}", l.name()))
}

// lease was given back by another.
func lease(s *kubetest.Server, l loss) {
	s.Apply(fmt.Sprintf("{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: hythe-controller, namespace: %s}, spec: {holderIdentity: '', leaseDurationSeconds: 1}}", l.name()))
}

// heldLease is another's for long: a program waits for it, and changes nothing.
func heldLease(s *kubetest.Server, l loss) {
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00")
	s.Apply(fmt.Sprintf("{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: hythe-controller, namespace: %s}, "+
		"spec: {holderIdentity: another, leaseDurationSeconds: 3600, acquireTime: %q, renewTime: %q}}", l.name(), now, now))
}

func noDefinition(s *kubetest.Server, _ loss) {
	s.Delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "reports.hythe.dev")
}

// rights are the roles of the chart, and an API server.
type rights struct {
	server *kubetest.Server
	dir    string
	roles  map[string][]rbacv1.ClusterRole // by name: Roles too, which differ by their kind alone
	order  []string
	losses []loss
}

func newRights(t *testing.T) *rights {
	r := &rights{server: kubetest.Start(t), dir: t.TempDir(), roles: map[string][]rbacv1.ClusterRole{}}
	r.server.InstallCRDs("hythe/crds")
	if out, err := exec.Command("go", "build", "-o", r.dir+"/", "../cmd/hythe").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := template(t, "{}")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects(t, out) {
		if o.GetKind() != "Role" && o.GetKind() != "ClusterRole" {
			continue
		}
		var role rbacv1.ClusterRole
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
			t.Fatal(err)
		}
		r.roles[role.Name] = append(r.roles[role.Name], role)
		if !slices.Contains(r.order, role.Name) {
			r.order = append(r.order, role.Name)
		}
	}
	slices.Sort(r.order) // cleanup and release are after what they end, but definitions, whose loss costs a kind
	slices.SortStableFunc(r.order, func(a, b string) int { return strings.Compare(last(a), last(b)) })
	for _, name := range r.order {
		for _, role := range r.roles[name] {
			for i, rule := range role.Rules {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						r.losses = append(r.losses, loss{role: name, kind: role.Kind, rule: i, verb: verb, resource: resource, number: 2 + len(r.losses)})
					}
				}
			}
		}
	}
	return r
}

func last(role string) string {
	if role == "hythe-definitions" {
		return "z"
	}
	return "a"
}

// grant makes a user with the rights of a role, without what l takes, and returns its way to the API server. Roles are of a
// namespace of the user's own.
func (r *rights) grant(t *testing.T, user, own, role string, l loss) *front {
	t.Helper()
	for _, granted := range r.roles[role] {
		o := granted.DeepCopy()
		if l.role == role && l.kind == o.Kind {
			rule := &o.Rules[l.rule]
			others := *rule
			rule.Verbs = slices.DeleteFunc(slices.Clone(rule.Verbs), func(v string) bool { return v == l.verb })
			if len(rule.Resources) > 1 { // those beside it keep the verb
				others.Verbs = []string{l.verb}
				others.Resources = slices.DeleteFunc(slices.Clone(others.Resources), func(v string) bool { return v == l.resource })
				o.Rules = append(o.Rules, others)
			}
			o.Rules = slices.DeleteFunc(o.Rules, func(rule rbacv1.PolicyRule) bool { return len(rule.Verbs) == 0 })
		}
		namespace := ""
		if o.Kind == "Role" {
			namespace = own
		}
		rules, err := json.Marshal(o.Rules)
		if err != nil {
			t.Fatal(err)
		}
		r.server.Apply(fmt.Sprintf("{apiVersion: rbac.authorization.k8s.io/v1, kind: %s, metadata: {name: %s, namespace: %q}, rules: %s}", o.Kind, user, namespace, rules))
		r.server.Apply(fmt.Sprintf("{apiVersion: rbac.authorization.k8s.io/v1, kind: %[1]sBinding, metadata: {name: %[2]s, namespace: %[3]q}, "+
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %[1]s, name: %[2]s}, subjects: [{kind: User, name: %[2]s}]}", o.Kind, user, namespace))
	}
	return newFront(t, r.server, user)
}

// commands are what runs with a role.
func (r *rights) commands(role, name string) [][]string {
	admin := func(part string) string { return "unix:" + filepath.Join(r.dir, name+"-"+part) }
	switch role {
	case "hythe-controller":
		return [][]string{{"controller", "--namespace", name, "--gateway-service", "default/gateway", "--admin", admin("controller")}}
	case "hythe-gateway":
		return [][]string{{"gateway", "--node", name, "--xds-socket", filepath.Join(r.dir, name+".sock"),
			"--auth-socket", filepath.Join(r.dir, name+"-auth.sock"), "--auth-table", filepath.Join(r.dir, name+"-auth.json"), "--admin", admin("gateway")}}
	case "hythe-node":
		return [][]string{{"node", "--node", name, "--without-proxy", "--without-lb", "--overlay", "none", "--cni-conf-dir", "",
			"--data", filepath.Join(r.dir, name), "--run", filepath.Join(r.dir, name), "--admin", admin("node")}}
	case "hythe-release":
		return [][]string{
			{"chart", "stop", "--namespace", name, "--selector", "a=b", "--deadline", "8s"},
			{"controller", "release", "--namespace", name, "--gateway-service", "default/gateway", "--deadline", "20s"},
		}
	case "hythe-definitions":
		return [][]string{{"chart", "definitions", "--namespace", name, "--deadline", "8s"}}
	case "hythe-cleanup":
		return [][]string{
			{"chart", "gone", "--namespace", name, "--selector", "a=b", "--deadline", "8s"},
			{"chart", "cleaned", "--namespace", name, "--deadline", "8s"},
		}
	}
	return nil
}

// whole lets all programs work with their whole roles, and leaves their Events.
func (r *rights) whole(t *testing.T) {
	s := r.server
	// An address that is there twice is a Problem that lasts.
	s.Apply("{apiVersion: hythe.dev/v1alpha1, kind: AddressPool, metadata: {name: edge}, spec: {addresses: [203.0.113.0/24, 203.0.113.1]}}")
	s.Apply("{apiVersion: v1, kind: Service, metadata: {name: gateway, annotations: {hythe.dev/addresses: 203.0.113.1}}, spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}}")
	s.Apply("{apiVersion: apps/v1, kind: Deployment, metadata: {name: hythe-controller, namespace: least-1}, spec: {replicas: 2, selector: {matchLabels: {c: d}}, template: {metadata: {labels: {c: d}}, spec: {containers: [{name: c, image: c}]}}}}")
	none := loss{number: 1}
	node(s, none)
	daemonSet(s, none)
	for _, role := range []string{"hythe-controller", "hythe-gateway", "hythe-node"} {
		f := r.grant(t, role+"-whole", none.name(), role, none)
		said := r.start(t, f, r.commands(role, none.name())...)
		switch role {
		case "hythe-controller":
			wait(t, said, func() bool {
				node := s.Get("v1", "Node", "", none.name())
				service, _ := json.Marshal(s.Get("v1", "Service", "default", "gateway").Object)
				events := s.Get("v1", "Event", "default", "").Object
				return strings.Contains(fmt.Sprint(node.Object), "HytheIsUp") && strings.Contains(string(service), "203.0.113.1") && len(events) > 0
			})
		default:
			name := strings.TrimPrefix(role, "hythe-") + "-" + none.name()
			wait(t, said, func() bool {
				code, _ := s.Do(http.MethodGet, kubetest.Path("hythe.dev/v1alpha1", "Report", "", name), nil)
				return code == http.StatusOK
			})
		}
		said.stop()
		f.unrefused(t)
	}
	for _, role := range []string{"hythe-release", "hythe-cleanup", "hythe-definitions"} {
		f := r.grant(t, role+"-whole", none.name(), role, none)
		for _, command := range r.commands(role, none.name()) {
			said := r.start(t, f, command)
			if said.wait(); said.failed() {
				t.Errorf("%s: %q fails:\n%s", role, command, said)
			}
		}
		f.unrefused(t)
	}
}

// lose runs what a role is for without one right, until somebody is told.
func (r *rights) lose(t *testing.T, l loss) {
	f := r.grant(t, l.name(), l.name(), l.role, l)
	if prepare := l.need(); prepare != nil {
		prepare(r.server, l)
	} else {
		heldLease(r.server, l)
	}
	commands := r.commands(l.role, l.name())
	if l.role == "hythe-controller" && l.verb+" "+l.resource == "delete reports" {
		commands = r.commands("hythe-release", l.name())[1:] // see needs
	}
	said := r.start(t, f, commands...)
	words := fmt.Sprintf("cannot %s resource %q", l.verb, l.resource)
	wait(t, said, func() bool { return strings.Contains(strings.ReplaceAll(said.String(), `\"`, `"`), words) })
	said.stop()
	for _, refused := range f.refusals() {
		if refused != words {
			t.Errorf("refused is %s too", refused)
		}
	}
}

// wait ends with the test's failure after a while. What ended by itself says no more.
func wait(t *testing.T, said *program, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if ended := said.ended(); time.Now().After(deadline) || ended {
			if ended && done() {
				return
			}
			t.Fatalf("nothing fails, or comes about, in time:\n%s", said)
		}
	}
}

// A program is one or several processes and what they say.
type program struct {
	mu   sync.Mutex
	text bytes.Buffer

	commands []*exec.Cmd
	done     sync.WaitGroup
	all      chan struct{}
}

func (r *rights) start(t *testing.T, f *front, commands ...[]string) *program {
	t.Helper()
	p := &program{all: make(chan struct{})}
	for _, args := range commands {
		cmd := exec.Command(filepath.Join(r.dir, "hythe"), append(args, "--kubeconfig", f.kubeconfig)...)
		cmd.Stdout, cmd.Stderr = p, p
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p.commands = append(p.commands, cmd)
		p.done.Go(func() { _ = cmd.Wait() })
	}
	go func() {
		p.done.Wait()
		close(p.all)
	}()
	t.Cleanup(p.stop)
	return p
}

// Write implements io.Writer.
func (p *program) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(data)
}

func (p *program) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *program) wait() { <-p.all }

func (p *program) ended() bool {
	select {
	case <-p.all:
		return true
	default:
		return false
	}
}

func (p *program) failed() bool {
	return slices.ContainsFunc(p.commands, func(c *exec.Cmd) bool { return !c.ProcessState.Success() })
}

func (p *program) stop() {
	for _, cmd := range p.commands {
		_ = cmd.Process.Signal(os.Interrupt)
	}
	p.wait()
}

// A front is the API server for one user, and notes what it refuses.
type front struct {
	kubeconfig string

	mu      sync.Mutex
	refused []string
}

func newFront(t *testing.T, s *kubetest.Server, user string) *front {
	t.Helper()
	f := &front{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	target, err := url.Parse("https://" + s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	admin, err := client.Connect(s.Config(), 0)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: admin.HTTP.Transport, FlushInterval: -1, ModifyResponse: f.note, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Header.Set("Impersonate-User", user)
		p.Out.Header.Del("Accept-Encoding")
	}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Query().Get("sendInitialEvents") != "" { // as a server without WatchList (KEP-3157): lists are asked for
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
			return
		}
		proxy.ServeHTTP(w, request)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	text := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}], "+
		"clusters: [{name: a, cluster: {server: %q, insecure-skip-tls-verify: true}}], users: [{name: a, user: {token: a}}]}", server.URL)
	if err := os.WriteFile(f.kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// note reads what a refusal says.
func (f *front) note(response *http.Response) error {
	if response.StatusCode != http.StatusForbidden {
		return nil
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	if words := refusal.FindString(strings.ReplaceAll(string(body), `\"`, `"`)); words != "" && !slices.Contains(f.refusals(), words) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.refused = append(f.refused, words)
	}
	return nil
}

var refusal = regexp.MustCompile(`cannot [a-z]+ resource "[^"]+"`)

func (f *front) refusals() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.refused)
}

func (f *front) unrefused(t *testing.T) {
	t.Helper()
	for _, words := range f.refusals() {
		t.Errorf("a whole role: %s", words)
	}
}
