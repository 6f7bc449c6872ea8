package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/examples"
	"hythe.dev/hythe/internal/kube/stamp"
)

func parse(t *testing.T, text string) *Objects {
	t.Helper()
	o := NewObjects()
	if err := Parse(o, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return o
}

func exampleObjects(t *testing.T) *Objects {
	t.Helper()
	o := NewObjects()
	for _, name := range []string{"hythe-system.yaml", "shop.yaml", "blog.yaml"} {
		data, err := examples.Files().ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := Parse(o, data); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

const twoServices = `
apiVersion: v1
kind: Service
metadata: {name: a, namespace: x}
spec: {type: NodePort, selector: {app: a}, ports: [{name: p, port: 80}, {name: q, port: 81, nodePort: 30500}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: x}
spec: {clusterIP: 10.96.7.7, selector: {app: b}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: x}
spec: {clusterIP: None, selector: {app: b}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: x}
spec: {type: ExternalName, externalName: example.com}
`

func TestCompleteKeepsWhatIsGivenAndWhatWas(t *testing.T) {
	given := parse(t, twoServices).Services
	first := Complete(given, nil)
	key := func(name string) Key { return Key{Namespace: "x", Name: name} }
	a := first[key("a")]
	if ip := netip.MustParseAddr(a.Spec.ClusterIP); !ServiceCIDR().Contains(ip) {
		t.Errorf("ClusterIP %s is not of %s", ip, ServiceCIDR())
	}
	if p := a.Spec.Ports[0].NodePort; p < firstNodePort || p > lastNodePort || p == 30500 {
		t.Errorf("NodePort %d", p)
	}
	if a.Spec.Ports[1].NodePort != 30500 || first[key("b")].Spec.ClusterIP != "10.96.7.7" {
		t.Error("what the manifests ask for was not respected")
	}
	if first[key("headless")].Spec.ClusterIP != "None" || first[key("elsewhere")].Spec.ClusterIP != "" {
		t.Error("a Service that wants no address has one")
	}
	if given[key("a")].Spec.ClusterIP != "" {
		t.Error("Complete changed its argument")
	}
	// A former address stays, even if it is not the one that the name would give now.
	before := map[Key]*corev1.Service{key("a"): a.DeepCopy()}
	before[key("a")].Spec.ClusterIP = "10.96.200.1"
	before[key("a")].Spec.Ports[0].NodePort = 31999
	second := Complete(given, before)[key("a")]
	if second.Spec.ClusterIP != "10.96.200.1" || second.Spec.Ports[0].NodePort != 31999 {
		t.Errorf("now %s and %d, want what it was before", second.Spec.ClusterIP, second.Spec.Ports[0].NodePort)
	}
	// But not against an address that another one asks for.
	before[key("a")].Spec.ClusterIP = "10.96.7.7"
	if ip := Complete(given, before)[key("a")].Spec.ClusterIP; ip == "10.96.7.7" {
		t.Error("an address was given twice")
	}
}

func TestCompleteGivesEachItsOwn(t *testing.T) {
	services := map[Key]*corev1.Service{}
	for i := range 2000 {
		k := Key{Namespace: "x", Name: fmt.Sprint("s", i)}
		services[k] = &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}}}
	}
	ips, ports := map[string]bool{}, map[int32]bool{}
	for _, s := range Complete(services, nil) {
		ips[s.Spec.ClusterIP], ports[s.Spec.Ports[0].NodePort] = true, true
	}
	if len(ips) != 2000 || len(ports) != 2000 {
		t.Errorf("%d addresses and %d ports for 2000 Services", len(ips), len(ports))
	}
}

// A world applies actions at once: pods are ready a step after their start and gone a step after their end.
type world struct {
	t         *testing.T
	workloads map[WorkloadKey]*Workload
	nodes     []Node
	pods      []*Pod
	next      int
}

func newWorld(t *testing.T, o *Objects) *world {
	nodes := []Node{}
	for _, n := range []string{"node1", "node2", "node3"} {
		labels := map[string]string{"kubernetes.io/hostname": n}
		if n != "node3" {
			labels["hythe.dev/gateway"] = "true"
		}
		nodes = append(nodes, Node{Name: n, Labels: labels})
	}
	return &world{t: t, workloads: o.Workloads, nodes: nodes}
}

// turn does one step and returns how many pods it started and ended.
func (w *world) turn() (started, ended int) {
	a := Step(w.workloads, w.pods, w.nodes, w.next)
	w.pods = slices.DeleteFunc(w.pods, func(p *Pod) bool { return p.Terminating })
	for _, p := range w.pods {
		p.Ready = true
		if slices.Contains(a.End, p.Key) {
			p.Terminating = true
		}
	}
	w.pods = append(w.pods, a.Start...)
	w.next += len(a.Start)
	return len(a.Start), len(a.End)
}

func (w *world) settle() {
	w.t.Helper()
	for range 100 {
		if s, e := w.turn(); s+e == 0 && !slices.ContainsFunc(w.pods, func(p *Pod) bool { return p.Terminating || !p.Ready }) {
			return
		}
	}
	w.t.Fatal("the world does not settle")
}

func (w *world) count(owner string, ok func(*Pod) bool) int {
	n := 0
	for _, p := range w.pods {
		if p.Owner.Name == owner && ok(p) {
			n++
		}
	}
	return n
}

func usable(p *Pod) bool { return p.Ready && !p.Terminating }

func TestStepPlacement(t *testing.T) {
	w := newWorld(t, exampleObjects(t))
	w.settle()
	perNode := map[string]int{}
	for _, p := range w.pods {
		if p.Owner.Name == "web" {
			perNode[p.Node]++
		}
		if p.Owner.Name == "envoy" && p.Node == "node3" {
			t.Error("Envoy runs on a node without the label that it selects")
		}
	}
	if len(perNode) != 3 {
		t.Errorf("three pods of web are spread as %v", perNode)
	}
	if n := w.count("envoy", usable); n != 2 {
		t.Errorf("%d Envoys, want one on each of two nodes", n)
	}
	if n := w.count("soon", usable); n != 0 {
		t.Errorf("%d pods of a Deployment with no replicas", n)
	}
}

func TestStepRollingUpdate(t *testing.T) {
	w := newWorld(t, exampleObjects(t))
	w.settle()
	web := WorkloadKey{Kind: "Deployment", Namespace: "shop", Name: "web"}
	changed := *w.workloads[web]
	changed.Template = *changed.Template.DeepCopy()
	changed.Template.Spec.Containers[0].Image = "hythe.dev/echo:v2"
	w.workloads[web] = &changed
	for turn := 0; ; turn++ {
		s, e := w.turn()
		if n := w.count("web", usable); n < 3 {
			t.Fatalf("turn %d: only %d of 3 pods can be used", turn, n)
		}
		if n := w.count("web", func(p *Pod) bool { return !p.Terminating }); n > 4 {
			t.Fatalf("turn %d: %d pods, want one above 3 at most", turn, n)
		}
		if s+e == 0 && turn > 5 {
			break
		}
		if turn > 50 {
			t.Fatal("the update does not end")
		}
	}
	w.settle()
	hash := TemplateHash(&changed)
	if n := w.count("web", func(p *Pod) bool { return p.Hash == hash }); n != 3 || w.count("web", usable) != 3 {
		t.Errorf("%d new pods of %d, want 3 of 3", n, w.count("web", usable))
	}
}

// TestDaemonSurge updates a DaemonSet with maxSurge 1: each node has a working pod all the time.
func TestDaemonSurge(t *testing.T) {
	w := newWorld(t, exampleObjects(t))
	w.settle()
	key := WorkloadKey{Kind: "DaemonSet", Namespace: "hythe-system", Name: "envoy"}
	changed := *w.workloads[key]
	changed.Template = *changed.Template.DeepCopy()
	changed.Template.Annotations = map[string]string{"update": "1"}
	w.workloads[key] = &changed
	hash := TemplateHash(&changed)
	for turn := 0; w.count("envoy", func(p *Pod) bool { return p.Hash == hash && usable(p) }) < 2 || len(w.pods) == 0; turn++ {
		w.turn()
		perNode := map[string]int{}
		for _, p := range w.pods {
			if p.Owner.Name == "envoy" && usable(p) {
				perNode[p.Node]++
			}
		}
		if len(perNode) != 2 {
			t.Fatalf("turn %d: nodes with a working Envoy are %v", turn, perNode)
		}
		if turn > 20 {
			t.Fatal("the update does not end")
		}
	}
	w.settle()
	if n := w.count("envoy", usable); n != 2 {
		t.Errorf("%d Envoys after the update", n)
	}
}

func TestStepScaleAndRemove(t *testing.T) {
	w := newWorld(t, exampleObjects(t))
	w.settle()
	web := WorkloadKey{Kind: "Deployment", Namespace: "shop", Name: "web"}
	more := *w.workloads[web]
	for _, n := range []int{5, 1, 0} {
		scaled := more
		scaled.Replicas = n
		w.workloads[web] = &scaled
		w.settle()
		if got := w.count("web", usable); got != n {
			t.Errorf("%d pods, want %d", got, n)
		}
	}
	clear(w.workloads)
	w.settle()
	if len(w.pods) != 0 {
		t.Errorf("%d pods are left of no workload", len(w.pods))
	}
}

func TestSlicesConditions(t *testing.T) {
	o := exampleObjects(t)
	services := Complete(o.Services, nil)
	pod := func(name string, last byte, ready, terminating bool) *Pod {
		web := o.Workloads[WorkloadKey{Kind: "Deployment", Namespace: "shop", Name: "web"}]
		return &Pod{
			Key: Key{Namespace: "shop", Name: name}, Node: "node1", Labels: web.Template.Labels, Spec: web.Template.Spec,
			Address: netip.AddrFrom4([4]byte{10, 244, 1, last}), Ready: ready, Terminating: terminating,
		}
	}
	starting := pod("web-0", 9, false, false)
	starting.Address = netip.Addr{}
	all := Slices(services, []*Pod{starting, pod("web-1", 1, true, false), pod("web-2", 2, false, false), pod("web-3", 3, true, true)})
	if len(all) != 1 || len(all[0].Endpoints) != 3 {
		t.Fatalf("%d slices: %v", len(all), all)
	}
	s := all[0]
	if *s.Ports[0].Port != 8080 || *s.Ports[0].Name != "http" || s.Labels["kubernetes.io/service-name"] != "web" {
		t.Errorf("slice %v", s)
	}
	want := []string{"true true false", "false false false", "false true true"}
	for i, e := range s.Endpoints {
		if got := fmt.Sprint(*e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating); got != want[i] {
			t.Errorf("%s: ready, serving, terminating are %s, want %s", e.TargetRef.Name, got, want[i])
		}
	}
}

func TestListens(t *testing.T) {
	o := parse(t, `
apiVersion: v1
kind: Service
metadata: {name: a, namespace: x}
spec: {selector: {app: a}, ports: [{name: p, port: 80, targetPort: 3000}, {name: q, port: 81, targetPort: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, labels: {app: a}}
spec: {containers: [{name: one, image: img}, {name: two, image: img, ports: [{containerPort: 9000}]}]}
`)
	w := o.Workloads[WorkloadKey{Kind: "Pod", Namespace: "x", Name: "a"}]
	pod := &Pod{Key: Key{Namespace: "x", Name: "a"}, Labels: w.Template.Labels, Spec: w.Template.Spec}
	first, second := Listens(pod, 0, o.Services), Listens(pod, 1, o.Services)
	if len(first) != 1 || first[0].ContainerPort != 3000 || len(second) != 1 || second[0].ContainerPort != 9000 {
		t.Errorf("containers listen on %v and %v, want 3000 and 9000", first, second)
	}
}

const onlyNamed = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: x}
spec:
  ingressClassName: nginx
  tls: [{hosts: [a.example], secretName: cert}]
  rules:
  - host: a.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: app, port: {name: web}}}}
      - {path: /n, pathType: Prefix, backend: {service: {name: app, port: {number: 8443}}}}
      - {path: /e, pathType: Prefix, backend: {service: {name: elsewhere, port: {number: 80}}}}
`

func TestAddFills(t *testing.T) {
	ca, err := NewCA(filepath.Join(t.TempDir(), "ca.crt"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	given := parse(t, onlyNamed+"---"+twoServices)
	system := parse(t, "")
	if a := Add(given, system, ca, false); len(a.Objects.Services)+len(a.Objects.Secrets)+len(a.Objects.IngressClasses) != 0 {
		t.Errorf("without fill it added %v", a.Added)
	}
	a := Add(given, system, ca, true)
	app := a.Objects.Services[Key{Namespace: "x", Name: "app"}]
	if app == nil || len(app.Spec.Ports) != 2 || app.Spec.Ports[0].Name != "web" || app.Spec.Ports[1].Port != 8443 {
		t.Fatalf("Service added: %v", app)
	}
	if c := a.Objects.IngressClasses["nginx"]; c == nil || c.Spec.Controller != "hythe.dev/ingress" {
		t.Errorf("class added: %v", c)
	}
	if !strings.Contains(strings.Join(a.Skipped, "\n"), "ExternalName") {
		t.Errorf("an ExternalName is not told of: %v", a.Skipped)
	}
	secret := a.Objects.Secrets[Key{Namespace: "x", Name: "cert"}]
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "a.example"}); err != nil {
		t.Errorf("the certificate does not verify: %v", err)
	}
	again := Add(given, system, ca, true).Objects.Secrets[Key{Namespace: "x", Name: "cert"}]
	if string(again.Data["tls.crt"]) != string(secret.Data["tls.crt"]) {
		t.Error("each look at the manifests makes another certificate")
	}
}

func TestAddGateway(t *testing.T) {
	ca, err := NewCA(filepath.Join(t.TempDir(), "ca.crt"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	system := NewObjects()
	data, _ := examples.Files().ReadFile("hythe-system.yaml")
	if err := Parse(system, data); err != nil {
		t.Fatal(err)
	}
	a := Add(parse(t, onlyNamed), system, ca, false)
	if len(a.Objects.Pools) != 1 || len(a.Objects.Workloads) != 1 || len(a.Objects.Services) != 1 || len(a.Objects.IngressClasses) != 1 {
		t.Errorf("to a folder without a gateway it added %v", a.Added)
	}
	if a := Add(exampleObjects(t), system, ca, false); len(a.Added) != 0 {
		t.Errorf("to the examples it added %v", a.Added)
	}
}

func TestFilesKeepLastGoodState(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".a", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		// The rename shows when the kernel's clock ticked since the file was written.
		deadline := time.Now().Add(10 * time.Second)
		for renamed := false; !renamed; {
			err := errors.Join(os.Rename(path+".a", path+".b"), os.Rename(path+".b", path+".a"))
			if err == nil {
				_, renamed, err = stamp.Of(path + ".a")
			}
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("the rename of a file does not show (error %v)", err)
			}
		}
		if err := os.Rename(path+".a", path); err != nil {
			t.Fatal(err)
		}
	}
	f := Files{Dir: dir}
	now := time.Now()
	look := func(after time.Duration, changed, bad bool, services int) {
		t.Helper()
		now = now.Add(after)
		is, err := f.poll(now)
		if is != changed || (err != nil) != bad || len(f.Objects().Services) != services {
			t.Errorf("changed %v, error %v, %d Services; want %v, %v, %d", is, err, len(f.Objects().Services), changed, bad, services)
		}
	}
	put(twoServices)
	look(0, true, false, 4)
	look(0, false, false, 4)
	put("kind: Service\napiVersion: v1\nmetadata: [broken\n")
	look(0, true, true, 4)
	put(twoServices + "\n---\nkind: Service\napiVersion: v1\nmetadata: {name: another}\n")
	look(0, true, false, 5)
	put("kind: Service\napiVersion: v1\nmetadata: {name: only}\n")
	look(0, false, false, 5)
	look(stamp.Wait, true, false, 1)
	// In place: any moment may be between two pieces.
	inPlace := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inPlace("")
	look(0, false, false, 1)
	inPlace("kind: Service\napiVersion: v1\nmetadata: {name: only}\nspec: {}\n")
	look(stamp.Wait, false, false, 1)
	look(stamp.Wait, true, false, 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look(0, false, false, 1)
	// Made again: all names are there, and half of the last object.
	inPlace("kind: Service\napiVersion: v1\nmetadata: {name: only}\n")
	look(0, false, false, 1)
	look(stamp.Wait, true, false, 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look(0, false, false, 1)
	look(stamp.Wait, true, false, 0)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(twoServices))
	f.Add([]byte(onlyNamed))
	f.Fuzz(func(_ *testing.T, data []byte) {
		o := NewObjects()
		_ = Parse(o, data)
		services := Complete(o.Services, nil)
		a := Step(o.Workloads, nil, []Node{{Name: "n"}}, 0)
		for _, p := range a.Start {
			for i := range p.Spec.Containers {
				Listens(p, i, services)
			}
		}
		Slices(services, a.Start)
	})
}
