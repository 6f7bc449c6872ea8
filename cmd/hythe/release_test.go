package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/lb"
)

// TestRelease gives Services addresses, ends the controller, and gives all back with the rights that the chart's hook has: a
// Service can be deleted then, and nothing of Hythe's is left.
func TestRelease(t *testing.T) {
	s := kubetest.Start(t)
	s.InstallCRDs("../../charts/hythe/crds")
	s.CreateFiles("../../internal/kube/testdata/api")
	s.CreateFiles("../../examples")
	s.CreateFiles("../../charts/hythe/files")
	for _, role := range []string{"hythe-controller", "hythe-release"} {
		for _, kind := range []string{"ClusterRole", "Role"} {
			s.Apply(fmt.Sprintf(`{apiVersion: rbac.authorization.k8s.io/v1, kind: %[2]sBinding, metadata: {name: %[1]s},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %[2]s, name: %[1]s}, subjects: [{kind: User, name: %[1]s}]}`, role, kind))
		}
	}
	base := process{kubeconfig: s.Kubeconfig("hythe-controller"), admin: "unix:" + filepath.Join(t.TempDir(), "admin"), level: slog.LevelWarn}
	get := func(kind, name string) string {
		version, namespace := "v1", "default"
		if kind != "Service" {
			version, namespace = "hythe.dev/v1alpha1", ""
		}
		_, body := s.Do(http.MethodGet, kubetest.Path(version, kind, namespace, name), nil)
		return string(body)
	}
	for i := range 5 {
		s.Apply(fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: svc-%d}, spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}}`, i))
	}
	c := controller{process: base, settings: lb.Settings{GatewayService: defaultGatewayService}, namespace: "default"}
	if err := c.start("controller"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	served := func(name string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			var svc corev1.Service
			_ = json.Unmarshal([]byte(get("Service", name)), &svc)
			if len(svc.Status.LoadBalancer.Ingress) == 1 && len(svc.Finalizers) == 1 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no address and finalizer in 30 s: %+v", svc)
			}
		}
	}
	for i := range 5 {
		served(fmt.Sprintf("svc-%d", i))
	}
	t.Run("reports deleted", func(t *testing.T) { reportsDeleted(t, s, served) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.Delete("v1", "Service", "default", "svc-0") // it waits

	base.kubeconfig = s.Kubeconfig("hythe-release")
	end := writesReport(t, s)
	for range 2 { // it may be repeated
		r := controller{process: base, settings: lb.Settings{Release: true, Shared: true, GatewayService: defaultGatewayService}, namespace: "default"}
		if err := r.start("controller"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var out bytes.Buffer
		err := r.release(ctx, &out)
		cancel()
		if err != nil || !strings.HasPrefix(out.String(), "released: ") {
			t.Fatalf("release: %v, %q", err, out.String())
		}
	}
	end()
	for _, kind := range []string{"AddressClaim", "Report"} {
		if body := get(kind, ""); !strings.Contains(body, `"items":[]`) {
			t.Errorf("%s left: %s", kind, body)
		}
	}
	if body := get("Service", "svc-0"); !strings.Contains(body, "NotFound") {
		t.Errorf("the deleted Service still waits: %s", body)
	}
	for _, name := range []string{"svc-1", "svc-4"} {
		if body := get("Service", name); strings.Contains(body, "load-balancer-cleanup") || strings.Contains(body, "203.0.113") {
			t.Errorf("%s: %s", name, body)
		}
	}
}

// reportsDeleted deletes all Reports while a controller runs: an Ingress that one of them named keeps its address.
func reportsDeleted(t *testing.T, s *kubetest.Server, served func(string)) {
	s.Apply(`{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: kept}, spec: {ingressClassName: hythe, defaultBackend: {service: {name: a, port: {number: 80}}}}}`)
	s.Apply(`{apiVersion: hythe.dev/v1alpha1, kind: Report, metadata: {name: gateway-n1}, component: gateway, node: n1, ready: true, ingresses: [default/kept]}`)
	address := func() string {
		_, body := s.Do(http.MethodGet, kubetest.Path("networking.k8s.io/v1", "Ingress", "default", "kept"), nil)
		var ingress networkingv1.Ingress
		if err := json.Unmarshal(body, &ingress); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(ingress.Status.LoadBalancer.Ingress)
	}
	for deadline := time.Now().Add(30 * time.Second); address() == "[]"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no address in 30 s")
		}
	}
	before := address()
	if code, answer := s.Do(http.MethodDelete, kubetest.Path("hythe.dev/v1alpha1", "Report", "", ""), nil); code != http.StatusOK {
		t.Fatalf("%d: %s", code, answer)
	}
	s.Apply(`{apiVersion: v1, kind: Service, metadata: {name: later}, spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}}`)
	served("later") // by a Build after the deletion
	if got := address(); got != before {
		t.Errorf("the address was %s, and is %s without Reports", before, got)
	}
}

// writesReport is an agent that runs on and writes its Report whenever it is gone, until end is called.
func writesReport(t *testing.T, s *kubetest.Server) (end func()) {
	t.Helper()
	path := kubetest.Path("hythe.dev/v1alpha1", "Report", "", "")
	stop, done, client := make(chan struct{}), make(chan struct{}), s.As("agent")
	go func() {
		defer close(done)
		again := time.NewTicker(time.Second)
		defer again.Stop()
		for {
			s.DoAs(client, http.MethodPost, path, []byte(`{"apiVersion":"hythe.dev/v1alpha1","kind":"Report","metadata":{"name":"gateway-n1"},"component":"gateway","node":"n1"}`))
			select {
			case <-stop:
				return
			case <-again.C:
			}
		}
	}()
	return func() {
		close(stop)
		<-done
		s.Do(http.MethodDelete, path+"/gateway-n1", nil) // as the chart's hook does when all agents have ended
	}
}

// TestReleaseWithoutKinds gives back where somebody took the CustomResourceDefinitions away first, and with them the claims
// and pools: by its writer the address is known to be Hythe's.
func TestReleaseWithoutKinds(t *testing.T) {
	s := kubetest.Start(t)
	path := kubetest.Path("v1", "Service", "default", "svc")
	s.Apply(`{apiVersion: v1, kind: Service, metadata: {name: svc}, spec: {type: LoadBalancer, ports: [{port: 80}]}}`)
	var svc corev1.Service
	_, body := s.Do(http.MethodGet, path, nil)
	if err := json.Unmarshal(body, &svc); err != nil {
		t.Fatal(err)
	}
	svc.Finalizers = []string{v1alpha1.CleanupFinalizer}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.10"}}
	body, err := json.Marshal(&svc)
	if err != nil {
		t.Fatal(err)
	}
	if code, answer := s.DoAs(s.As(v1alpha1.FieldManager), http.MethodPut, path+"/status", body); code != http.StatusOK {
		t.Fatalf("write status: %d %s", code, answer)
	}
	r := releasing()
	r.kubeconfig, r.level, r.namespace = s.Kubeconfig("admin", "system:masters"), slog.LevelWarn, "default"
	r.settings.GatewayService, r.settings.WithoutClass = defaultGatewayService, true
	if err := r.start("controller"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	if err := r.release(ctx, &out); err != nil {
		t.Fatalf("release: %v, %q", err, out.String())
	}
	if _, body := s.Do(http.MethodGet, path, nil); strings.Contains(string(body), "load-balancer-cleanup\"]") || strings.Contains(string(body), "203.0.113") {
		t.Errorf("%s", body)
	}
}
