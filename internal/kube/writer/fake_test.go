package writer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// A fakeServer is an API server in memory that keeps the last written bytes of each path.
type fakeServer struct {
	mu      sync.Mutex
	objects map[string]any // what a GET answers, by path
	writes  []string       // method and path
	before  func(r *http.Request)
	refuse  func(r *http.Request) bool // with a conflict
}

// RoundTrip implements http.RoundTripper.
func (f *fakeServer) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before != nil {
		f.before(r)
	}
	code, body := http.StatusOK, f.objects[r.URL.Path]
	switch r.Method {
	case http.MethodGet:
	case http.MethodDelete:
		delete(f.objects, r.URL.Path)
	case http.MethodPost:
		var o struct {
			Metadata metav1.ObjectMeta `json:"metadata"`
		}
		data, _ := io.ReadAll(r.Body)
		if json.Unmarshal(data, &o) == nil && o.Metadata.Name != "" { // custom resources are JSON
			path := r.URL.Path + "/" + o.Metadata.Name
			if f.objects[path] != nil {
				code, body = http.StatusConflict, nil
				break
			}
			f.objects[path] = json.RawMessage(data)
		}
		body = json.RawMessage(data)
	case http.MethodPut:
		if strings.HasPrefix(r.URL.Path, "/apis/hythe.dev") {
			data, _ := io.ReadAll(r.Body)
			f.objects[r.URL.Path] = json.RawMessage(data)
		}
		body = f.objects[strings.TrimSuffix(r.URL.Path, "/status")]
	}
	if r.Method != http.MethodGet {
		f.writes = append(f.writes, r.Method+" "+r.URL.Path)
	}
	if f.refuse != nil && f.refuse(r) {
		body = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
			Reason: metav1.StatusReasonConflict, Code: http.StatusConflict}
		code = http.StatusConflict
	}
	if body == nil {
		reason := metav1.StatusReasonNotFound
		if code == http.StatusConflict {
			reason = metav1.StatusReasonAlreadyExists
		} else {
			code = http.StatusNotFound
		}
		body = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: reason, Code: int32(code)}
	}
	data, err := json.Marshal(body)
	if err != nil {
		data = []byte("{}")
	}
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(data)), Request: r}, nil
}

func (f *fakeServer) written() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.writes = nil }()
	return strings.Join(f.writes, "\n")
}

func (f *fakeServer) writer(t *testing.T) *Writer {
	t.Helper()
	w, err := New(&rest.Config{Host: "https://fake", WrapTransport: func(http.RoundTripper) http.RoundTripper { return f }}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestPanicCostsItself checks that an object whose writing panics costs itself alone.
func TestPanicCostsItself(t *testing.T) {
	f := &fakeServer{objects: map[string]any{}}
	s := &model.Snapshot{}
	d := Desired{Services: map[model.Key][]corev1.LoadBalancerIngress{}}
	for _, name := range []string{"a", "b", "c"} {
		service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
		key := model.Key{Namespace: "n", Name: name}
		s.Services = s.Services.With(key, service)
		d.Services[key] = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
		f.objects["/api/v1/namespaces/n/services/"+name] = service
	}
	f.before = func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/b") {
			panic("of b")
		}
	}
	_, err := f.writer(t).Set(t.Context(), s, d)
	var caught *contain.Panic
	if !errors.As(err, &caught) || !strings.Contains(err.Error(), "write status of Service n/b: panic at writer.TestPanicCostsItself") {
		t.Errorf("error %v", err)
	}
	if got, want := f.written(), "PUT /api/v1/namespaces/n/services/a/status\nPUT /api/v1/namespaces/n/services/c/status"; got != want {
		t.Errorf("written:\n%s\nwant:\n%s", got, want)
	}
}

// TestTwoLeaders checks that two controllers that both think they lead, with Snapshots of different age, give one address
// once: whoever creates the claim has it.
func TestTwoLeaders(t *testing.T) {
	f := &fakeServer{objects: map[string]any{}}
	claim := func(service string) Desired {
		c := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.10"}}
		c.Spec.Address, c.Spec.Services = "203.0.113.10", []v1alpha1.ServiceRef{{Namespace: "n", Name: service}}
		return Desired{
			Claims:   []*v1alpha1.AddressClaim{c},
			Services: map[model.Key][]corev1.LoadBalancerIngress{{Namespace: "n", Name: service}: {{IP: c.Spec.Address}}},
		}
	}
	s := &model.Snapshot{}
	for _, name := range []string{"a", "b"} {
		service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
		s.Services = s.Services.With(model.Key{Namespace: "n", Name: name}, service)
		f.objects["/api/v1/namespaces/n/services/"+name] = service
	}
	one, two := f.writer(t), f.writer(t)
	if problems, err := one.Set(t.Context(), s, claim("a")); err != nil || len(problems) != 0 {
		t.Fatalf("first: %v, %v", problems, err)
	}
	const created = "POST /apis/hythe.dev/v1alpha1/addressclaims\nPUT /api/v1/namespaces/n/services/a/status\nPOST /api/v1/namespaces/n/events"
	if got := f.written(); got != created {
		t.Errorf("the first wrote:\n%s\nwant:\n%s", got, created)
	}
	problems, err := two.Set(t.Context(), s, claim("b"))
	if err != nil || len(problems) != 1 || problems[0].Reason != ReasonClaimedByAnother {
		t.Errorf("second: %v, %v", problems, err)
	}
	if got := f.written(); got != "POST /apis/hythe.dev/v1alpha1/addressclaims\nPOST /api/v1/namespaces/n/events" {
		t.Errorf("the second wrote:\n%s\nwant nothing after the refused claim but the Event about it", got)
	}
	if c := two.Current(s).Claims["203.0.113.10"]; c == nil || c.Spec.Services[0].Name != "a" {
		t.Errorf("the second believes in %+v", c)
	}
}

// TestReportsOfGoneNodes checks that the leader deletes a Report when its node is gone for long, and no other.
func TestReportsOfGoneNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeServer{objects: map[string]any{"/apis/hythe.dev/v1alpha1/reports/gateway-old": map[string]any{}}}
		w := f.writer(t)
		s := &model.Snapshot{Nodes: map[string]*model.Node{"n1": {Name: "n1"}}, Reports: map[string]*v1alpha1.Report{
			"node-n1": {Node: "n1"}, "gateway-old": {Node: "old"}, "strange": {},
		}}
		set := func(s *model.Snapshot, want string) {
			t.Helper()
			if _, err := w.Set(t.Context(), s, Desired{}); err != nil {
				t.Error(err)
			}
			if got := f.written(); got != want {
				t.Errorf("written %q, want %q", got, want)
			}
		}
		back, empty := *s, *s
		back.Nodes = map[string]*model.Node{"n1": {}, "old": {}}
		empty.Nodes = nil
		set(s, "")
		time.Sleep(goneFor - time.Second)
		set(s, "")
		set(&back, "") // it came back in time
		set(s, "")
		time.Sleep(goneFor - time.Second)
		set(&empty, "")
		time.Sleep(time.Second)
		set(&empty, "")
		set(s, "DELETE /apis/hythe.dev/v1alpha1/reports/gateway-old")
	})
}

// TestLeavingTellsNothing checks that who gives everything back writes neither Events nor conditions: it has no right to.
func TestLeavingTellsNothing(t *testing.T) {
	s := &model.Snapshot{Nodes: map[string]*model.Node{"n1": {Name: "n1"}}}
	problem := []model.Problem{model.Problemf(model.ObjectRef{Kind: "Node", Name: "n1"}, "A", "b")}
	for _, release := range []bool{false, true} {
		f := &fakeServer{objects: map[string]any{"/api/v1/nodes/n1": &corev1.Node{}}}
		_, err := f.writer(t).Set(t.Context(), s, Desired{Release: release, Networks: []string{"n1"}, Problems: problem, News: problem})
		if got := f.written(); release != (got == "") || release && err != nil {
			t.Errorf("release %t: written %q, error %v", release, got, err)
		}
	}
}

// TestReportIsLookedFor checks that a Report that somebody deleted comes back, and that it costs no write else.
func TestReportIsLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeServer{objects: map[string]any{}}
		w := f.writer(t)
		report := func(want string) {
			t.Helper()
			if err := w.WriteReport(t.Context(), v1alpha1.Report{Component: "node", Node: "n1", Ready: true}); err != nil {
				t.Error(err)
			}
			if got := f.written(); got != want {
				t.Errorf("written %q, want %q", got, want)
			}
		}
		report("POST /apis/hythe.dev/v1alpha1/reports")
		delete(f.objects, "/apis/hythe.dev/v1alpha1/reports/node-n1")
		report("")
		time.Sleep(reportAgain)
		report("POST /apis/hythe.dev/v1alpha1/reports")
		time.Sleep(reportAgain)
		report("")
	})
}

// TestConflict checks that a status is written again when somebody else wrote the object in between.
func TestConflict(t *testing.T) {
	f := &fakeServer{objects: map[string]any{}}
	key := model.Key{Namespace: "n", Name: "a"}
	service := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"}}
	f.objects["/api/v1/namespaces/n/services/a"] = service
	conflicts := 2
	f.refuse = func(r *http.Request) bool {
		if r.Method != http.MethodPut || conflicts == 0 {
			return false
		}
		conflicts--
		return true
	}
	s := &model.Snapshot{Services: model.ObjectsOf(map[model.Key]*corev1.Service{key: service})}
	d := Desired{Services: map[model.Key][]corev1.LoadBalancerIngress{key: {{IP: "203.0.113.1"}}}}
	if _, err := f.writer(t).Set(t.Context(), s, d); err != nil {
		t.Fatal(err)
	}
	const put = "PUT /api/v1/namespaces/n/services/a/status"
	if got := f.written(); got != put+"\n"+put+"\n"+put {
		t.Errorf("written:\n%s\nwant three times the status", got)
	}
}

// TestOnlyOwnStatus checks which Ingresses are written: those whose address changes, and of others' only an address of the
// gateways is taken away.
func TestOnlyOwnStatus(t *testing.T) {
	f := &fakeServer{objects: map[string]any{}}
	s := &model.Snapshot{Claims: map[string]*v1alpha1.AddressClaim{}}
	gateway := model.Key{Namespace: "hythe-system", Name: "gateway"}
	for name, ips := range map[string][]string{"served": {"203.0.113.10"}, "new": nil, "left": {"203.0.113.10"}, "foreign": {"198.51.100.7"}, "behind": {"203.0.113.11"}} {
		i := &networkingv1.Ingress{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "Ingress"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
		for _, ip := range ips {
			i.Status.LoadBalancer.Ingress = append(i.Status.LoadBalancer.Ingress, networkingv1.IngressLoadBalancerIngress{IP: ip})
		}
		s.Ingresses = s.Ingresses.With(model.Key{Namespace: "n", Name: name}, i)
		f.objects["/apis/networking.k8s.io/v1/namespaces/n/ingresses/"+name] = i
	}
	d := Desired{GatewayService: gateway, Ingresses: map[model.Key][]networkingv1.IngressLoadBalancerIngress{
		{Namespace: "n", Name: "served"}: {{IP: "203.0.113.10"}}, {Namespace: "n", Name: "new"}: {{IP: "203.0.113.10"}},
	}}
	for ip, service := range map[string]string{"203.0.113.10": "gateway", "203.0.113.11": "other"} {
		c := &v1alpha1.AddressClaim{ObjectMeta: metav1.ObjectMeta{Name: ip}}
		c.Spec.Address, c.Spec.Services = ip, []v1alpha1.ServiceRef{{Namespace: "hythe-system", Name: service}}
		s.Claims[ip] = c
		d.Claims = append(d.Claims, c)
	}
	if _, err := f.writer(t).Set(t.Context(), s, d); err != nil {
		t.Fatal(err)
	}
	const path = "PUT /apis/networking.k8s.io/v1/namespaces/n/ingresses/"
	if got, want := f.written(), path+"left/status\n"+path+"new/status"; got != want {
		t.Errorf("written:\n%s\nwant:\n%s", got, want)
	}
}
