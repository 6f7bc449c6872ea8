package charts_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"hythe.dev/hythe/charts"
	"hythe.dev/hythe/internal/kube/install"
	"hythe.dev/hythe/internal/kube/kubetest"
)

// TestInstall takes the chart through its life on a real API server, which has no nodes: hooks, which are pods, are left
// out.
func TestInstall(t *testing.T) {
	for _, name := range []string{helm3, helm4} {
		t.Run(name, func(t *testing.T) { life(t, name) })
	}
}

func life(t *testing.T, name string) {
	s := kubetest.Start(t)
	kubeconfig := s.Kubeconfig("admin", "system:masters")
	helm := func(args ...string) string {
		t.Helper()
		out, diagnosis, err := runHelm(t, name, append(args, "--kubeconfig", kubeconfig, "--namespace", "hythe-system")...)
		if err != nil {
			t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, diagnosis)
		}
		return out
	}
	key := func() string {
		t.Helper()
		data, _, _ := unstructured.NestedString(s.Get("v1", "Secret", "hythe-system", "hythe-heartbeat").Object, "data", "key")
		if len(data) < 40 {
			t.Fatalf("the heartbeat's key is %q", data)
		}
		return data
	}
	generation := func(name string) int64 {
		t.Helper()
		var o unstructured.Unstructured
		code, body := s.Do(http.MethodGet, "/apis/apps/v1/namespaces/hythe-system/daemonsets/"+name, nil)
		if err := o.UnmarshalJSON(body); err != nil || code != http.StatusOK {
			t.Fatalf("get DaemonSet %s: %d: %s", name, code, body)
		}
		return o.GetGeneration()
	}
	pool := []string{"--set", "apiServers={192.0.2.11:6443}", "--set", "addressPools[0].name=edge,addressPools[0].addresses[0]=203.0.113.1"}
	if _, diagnosis, err := runHelm(t, name, "install", "hythe", "hythe", "--kubeconfig", kubeconfig, "--namespace", "hythe-system", "--create-namespace",
		"--dry-run=server", "--set", "loadbalancer.enabled=true"); err == nil || !strings.Contains(diagnosis, "'loadbalancer' not allowed") {
		t.Errorf("an unknown key: %v: %s", err, diagnosis)
	}
	// A server takes no object of a kind whose definition is only to be made: the pool comes later.
	helm("install", "hythe", "hythe", "--dry-run=server", "--set", "apiServers={192.0.2.11:6443}")
	notes := helm(append([]string{"install", "hythe", "hythe", "--create-namespace", "--no-hooks"}, pool...)...)
	if !strings.Contains(notes, "gateway, load balancer, overlay, Service proxy") || strings.Contains(notes, "WARNING") {
		t.Errorf("NOTES:\n%s", notes)
	}
	if code, body := s.Do(http.MethodGet, kubetest.Path("hythe.dev/v1alpha1", "AddressPool", "", "edge"), nil); code != http.StatusOK {
		t.Errorf("the pool: %d: %s", code, body)
	}
	first := key()
	helm(append([]string{"upgrade", "hythe", "hythe", "--no-hooks", "--set", "image.tag=other"}, pool...)...)
	if key() != first {
		t.Error("an upgrade changes the heartbeat's key: all VIPs are lost for a while")
	}
	if generation("hythe-gateway") != 2 || generation("hythe-envoy") != 1 {
		t.Errorf("an upgrade is generation %d of the gateway, %d of Envoy; want 2 and 1", generation("hythe-gateway"), generation("hythe-envoy"))
	}
	_, diagnosis, err := runHelm(t, name, append([]string{"upgrade", "hythe", "hythe", "--no-hooks", "--set", "loadBalancer.enabled=false",
		"--kubeconfig", kubeconfig, "--namespace", "hythe-system"}, pool...)...)
	if err == nil || !strings.Contains(diagnosis, "delete service hythe-gateway") {
		t.Errorf("another class for the gateway's Service: error %v, helm says %s, want the remedy", err, diagnosis)
	}
	helm("rollback", "hythe", "1", "--no-hooks")
	if key() != first || generation("hythe-gateway") != 3 || generation("hythe-envoy") != 1 {
		t.Error("a rollback changes the heartbeat's key, or Envoy, or not the gateway")
	}
	if name == helm3 { // somebody changes to Helm 4
		if _, diagnosis, err := runHelm(t, helm4, append([]string{"upgrade", "hythe", "hythe", "--no-hooks", "--set", "image.tag=third",
			"--kubeconfig", kubeconfig, "--namespace", "hythe-system"}, pool...)...); err != nil {
			t.Errorf("an upgrade by Helm 4: %v: %s", err, diagnosis)
		}
		if key() != first || generation("hythe-gateway") != 4 || generation("hythe-envoy") != 1 {
			t.Error("an upgrade by Helm 4 changes the heartbeat's key, or Envoy, or not the gateway")
		}
	}
	t.Run("definitions", func(t *testing.T) { definitions(t, s) })
	helm("uninstall", "hythe", "--no-hooks")
	for _, path := range []string{
		"/apis/apps/v1/namespaces/hythe-system/daemonsets", "/apis/apps/v1/namespaces/hythe-system/deployments",
		"/apis/policy/v1/namespaces/hythe-system/poddisruptionbudgets", "/api/v1/namespaces/hythe-system/services",
		"/apis/networking.k8s.io/v1/ingressclasses", "/apis/hythe.dev/v1alpha1/addresspools",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
		"/apis/rbac.authorization.k8s.io/v1/namespaces/hythe-system/roles",
	} {
		var list unstructured.UnstructuredList
		_, body := s.Do(http.MethodGet, path+"?labelSelector=app.kubernetes.io/part-of=hythe", nil)
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		for _, o := range list.Items {
			if o.GetDeletionTimestamp() == nil { // nobody runs here who would end what depends on it
				t.Errorf("left after uninstall: %s %s", o.GetKind(), o.GetName())
			}
		}
	}
}

// definitions does what the hook of an upgrade does, with its rights: it brings back what is missing of a definition.
func definitions(t *testing.T, s *kubetest.Server) {
	out, err := template(t, "{}", "--show-only", "templates/hook-definitions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects(t, out) {
		if o.GetKind() == "ClusterRole" || o.GetKind() == "ClusterRoleBinding" {
			data, err := json.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			s.Apply(string(data))
			defer s.Delete(o.GetAPIVersion(), o.GetKind(), "", o.GetName())
		}
	}
	const pools = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/addresspools.hythe.dev"
	columns := func() int {
		_, body := s.Do(http.MethodGet, pools, nil)
		return strings.Count(string(body), `"jsonPath"`)
	}
	before := columns()
	if code, answer := s.Do(http.MethodPatch, pools, []byte(`{"metadata":{"labels":{"of":"others"}},"spec":{"versions":[{"name":"v1alpha1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`)); code != http.StatusOK {
		t.Fatalf("%d: %s", code, answer)
	}
	if before == 0 || columns() != 0 {
		t.Fatalf("the definition has %d columns, and %d after they were taken away", before, columns())
	}
	cluster, err := install.New(s.ConfigFor("system:serviceaccount:hythe-system:hythe-definitions"))
	if err != nil {
		t.Fatal(err)
	}
	documents, err := charts.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it may be done again
		if err := cluster.Definitions(t.Context(), documents); err != nil {
			t.Fatal(err)
		}
	}
	_, body := s.Do(http.MethodGet, pools, nil)
	if columns() != before || !strings.Contains(string(body), `"of":"others"`) {
		t.Errorf("the definition has %d columns, want %d, and the label of others: %s", columns(), before, body)
	}
	if err := cluster.Definitions(t.Context(), [][]byte{[]byte("{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: a.example.com}}")}); err == nil {
		t.Error("another's definition may be written")
	}
}
