package kube

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
)

// TestAPIFaults does to one API server what happens to them, one thing after the other. Each begins with the world as the
// one before left it.
func TestAPIFaults(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	t.Run("bad answers", func(t *testing.T) { testBadAnswers(t, s) })
	t.Run("forbidden", func(t *testing.T) { testForbidden(t, s) })
	t.Run("all deleted", func(t *testing.T) { testAllDeleted(t, s) })
	t.Run("definitions", func(t *testing.T) { testDefinitions(t, s) })
	t.Run("definition of claims", func(t *testing.T) { testClaimsDefinition(t, s) })
}

// TestAPIServers has more than one API server, and then one with older data.
func TestAPIServers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	t.Run("several", func(t *testing.T) { testSeveral(t, s) })
	t.Run("restored", func(t *testing.T) { testRestored(t, s) })
}

// keeps checks that no Snapshot after the first n lacks what stood in the world before, except some Services of the namespace
// default.
func keeps(t *testing.T, f *follower, n int, world *model.Snapshot, except ...string) {
	t.Helper()
	for _, got := range f.snapshots()[n:] {
		for key := range world.Services.All() {
			if got.Services.Get(key) == nil && !slices.Contains(except, key.Name) {
				t.Fatalf("a Snapshot lacks Service %s, which was never deleted; problems %v", key, got.Problems)
			}
		}
		if got.Ingresses.Len() < world.Ingresses.Len() || got.Endpoints.Len() < world.Endpoints.Len() || len(got.Nodes) < len(world.Nodes) ||
			got.Secrets.Len() < world.Secrets.Len() || len(got.Claims) < len(world.Claims) || len(got.Pools) < len(world.Pools) {
			t.Fatalf("a Snapshot lacks objects that were never deleted; problems %v", got.Problems)
		}
	}
}

func (f *follower) lists() int { return int(f.api.sum(func(r *replica) int { return r.lists })) }

// hasReason is the property that a Snapshot has, or has not, a Problem with a reason.
func hasReason(reason string, want bool) func(*model.Snapshot) bool {
	return func(s *model.Snapshot) bool { return strings.Contains(reasons(s), reason) == want }
}

// testSeveral gives a client three API servers. The first is dead from the start. The second ends while etcd forgets its
// history, so that the third cannot go on with any watch; then the third ends, and then the connection to the second is
// half dead: nothing comes, nothing ends.
func testSeveral(t *testing.T, s *kubetest.Server) {
	proxy, third := kubetest.NewProxy(t, s.Addr()), s.Second()
	config := s.Config()
	if err := client.Servers(config, []string{"https://" + testenv.FreeAddress(t).String(), "https://" + proxy.Addr(), third.URL()}); err != nil {
		t.Fatal(err)
	}
	const ping = 2 * time.Second
	s.Apply(service("goes"))
	f := follow(t, config, APIOptions{Kinds: AllKinds(), Ping: ping})
	world := f.until("the Service that goes", hasService("goes"))
	kinds := len(AllKinds())

	s.Compact()
	s.Apply(service("after-compaction"))
	f.until("a Service that came after the compaction", hasService("after-compaction"))
	if got := f.lists(); got != kinds {
		t.Errorf("%d lists of %d kinds: a watch that runs needs no history", got, kinds)
	}

	proxy.Refuse()
	s.Apply(service("while-away"))
	s.Delete("v1", "Service", "default", "goes")
	s.Compact()
	third.Start()
	f.until("what was made meanwhile", hasService("while-away"))
	eventually(t, "an answer to each request", func() bool { return f.api.Age() == 0 })
	if got := f.until("no Service that was deleted", func(s *model.Snapshot) bool { return !hasService("goes")(s) }); !hasService("after-compaction")(got) {
		t.Error("a Service is lost")
	}
	if expired := f.api.sum(func(r *replica) int { return r.expired }); expired == 0 {
		t.Error("no watch was refused for its age: this test did not see what it is for")
	}
	if got := f.lists(); got > 2*kinds {
		t.Errorf("%d lists of %d kinds, want each again once at most", got, kinds)
	}

	third.Stop()
	proxy.Pass()
	s.Apply(service("by-the-second"))
	f.until("what the second server knows", hasService("by-the-second"))
	eventually(t, "an answer to each request", func() bool { return f.api.Age() == 0 })

	third.Start()
	proxy.Freeze()
	s.Apply(service("while-half-dead"))
	start := time.Now()
	f.until("what was made while the connection was half dead", hasService("while-half-dead"))
	t.Logf("half-dead connection: the next server is used after %s", time.Since(start).Round(10*time.Millisecond))
	keeps(t, f, 0, world, "goes")
}

// testBadAnswers puts a server in between that is slow, refuses, and cuts answers short.
func testBadAnswers(t *testing.T, s *kubetest.Server) {
	g := kubetest.NewGate(s)
	config := s.Config()
	config.Host = g.URL
	g.Set(func(*http.Request) kubetest.Fault { return kubetest.Fault{Delay: 2500 * time.Millisecond} })
	f := follow(t, config, APIOptions{Kinds: AllKinds()})
	world := f.until("a first Snapshot", anySnapshot)
	if len(world.Problems) != 0 {
		t.Errorf("problems of a slow server: %v", world.Problems)
	}
	s.Apply(service("slow"))
	f.until("a Service from a slow server", hasService("slow"))

	g.Set(func(r *http.Request) kubetest.Fault {
		codes := []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable}
		return kubetest.Fault{Code: codes[len(r.URL.Path)%3], RetryAfter: 1}
	})
	g.Break()
	s.Apply(service("while-refused"))
	got := f.until("a Problem", hasReason(ReasonAPIServerAway, true))
	if !strings.Contains(got.Problems[0].Message, "the server") || f.api.Age() == 0 {
		t.Errorf("problems %v, age %s", got.Problems, f.api.Age())
	}
	refused := g.Hits()
	g.Set(nil)
	f.until("what was made while the server refused", hasService("while-refused"))
	f.until("no Problem", hasReason(ReasonAPIServerAway, false))
	if most := 10 * len(AllKinds()) * 2; refused < len(AllKinds()) || refused > most {
		t.Errorf("%d requests to a server that refuses, want %d to %d", refused, len(AllKinds()), most)
	}

	n := len(f.snapshots())
	g.Set(func(*http.Request) kubetest.Fault { return kubetest.Fault{Cut: 700} })
	g.Break()
	s.Apply(service("while-cut"))
	eventually(t, "all kinds were cut twice", func() bool { return g.Hits() > 2*len(AllKinds()) })
	g.Set(nil)
	f.until("what was made while answers were cut", hasService("while-cut"))
	f.until("no Problem", func(s *model.Snapshot) bool { return len(s.Problems) == 0 })
	keeps(t, f, n, world)
	keeps(t, f, 0, world)
}

// testForbidden takes the right to read one kind away and gives it back.
func testForbidden(t *testing.T, s *kubetest.Server) {
	role := func(ingresses string) {
		s.Apply(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader}, rules: [
{apiGroups: [""], resources: [services, nodes, secrets], verbs: [get, list, watch]},
{apiGroups: [networking.k8s.io], resources: [ingressclasses], verbs: [get, list, watch]},
{apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [` + ingresses + `]},
{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]},
{apiGroups: [hythe.dev], resources: [addressclaims, gatewayconfigs], verbs: [list, watch]}]}`)
	}
	role("get, list, watch")
	s.Apply(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: reader},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}, subjects: [{kind: User, name: reader}]}`)
	proxy := kubetest.NewProxy(t, s.Addr())
	config := s.ConfigFor("reader")
	config.Host = "https://" + proxy.Addr()
	f := follow(t, config, APIOptions{Kinds: GatewayKinds()})
	world := f.until("a first Snapshot", anySnapshot)
	reader, err := rest.HTTPClientFor(s.ConfigFor("reader"))
	if err != nil {
		t.Fatal(err)
	}
	for _, verbs := range []string{"get", "get, list"} {
		role(verbs)
		eventually(t, "the right is gone", func() bool {
			code, _ := s.DoAs(reader, http.MethodGet, kubetest.Path("networking.k8s.io/v1", "Ingress", "", "")+"?watch=1&timeoutSeconds=1", nil)
			return code == http.StatusForbidden
		})
		proxy.Refuse() // rights are looked at when a request begins
		proxy.Pass()
		got := f.until("a Problem", hasReason(ReasonForbidden, true))
		want := "list"
		if verbs == "get, list" {
			want = "watch"
		}
		p := got.Problems[0]
		if len(got.Problems) != 1 || !strings.Contains(p.Message, `cannot `+want+` resource "ingresses" in API group "networking.k8s.io"`) ||
			!strings.Contains(p.Message, "the verbs get, list and watch on ingresses.networking.k8s.io") {
			t.Errorf("with the verbs %s: problems %v", verbs, got.Problems)
		}
		name := "while-forbidden-" + want
		s.Apply(service(name))
		f.until("a Service, which may be read", hasService(name))
		if f.api.FromCache() || f.api.Age() == 0 {
			t.Errorf("from cache %v, age %s", f.api.FromCache(), f.api.Age())
		}
		s.Apply(fmt.Sprintf(`{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: %s, namespace: shop}, spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}}`, name))
		role("get, list, watch")
		f.until("the Ingress made meanwhile", func(s *model.Snapshot) bool { return s.Ingresses.Get(model.Key{Namespace: "shop", Name: name}) != nil })
		f.until("no Problem", func(s *model.Snapshot) bool { return len(s.Problems) == 0 })
	}
	keeps(t, f, 0, world)
}

// testAllDeleted deletes all of a kind, and a namespace with all in it, as people do: that is believed at once.
func testAllDeleted(t *testing.T, s *kubetest.Server) {
	f := follow(t, s.Config(), APIOptions{Kinds: GatewayKinds()})
	for i := range 10 {
		s.Apply(fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: s%[1]d, namespace: mass}, spec: {ports: [{port: 80}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i%[1]d, namespace: mass}, spec: {defaultBackend: {service: {name: s%[1]d, port: {number: 80}}}}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e%[1]d, namespace: mass, labels: {kubernetes.io/service-name: s%[1]d}},
addressType: IPv4, ports: [{port: 80}], endpoints: [{addresses: [10.244.1.7]}]}
---
{apiVersion: v1, kind: Secret, metadata: {name: t%[1]d, namespace: mass}, type: kubernetes.io/tls, stringData: {tls.crt: a, tls.key: b}}`, i))
	}
	last := model.Key{Namespace: "mass", Name: "t9"}
	f.until("all objects", func(s *model.Snapshot) bool { return s.Secrets.Get(last) != nil })
	n := len(f.snapshots())
	s.Delete("v1", "Namespace", "", "mass") // what stands in it goes one kind after the other, by the controller manager
	for _, kind := range []string{"Secret", "Ingress", "EndpointSlice", "Service"} {
		r, _ := client.ResourceOf(kind)
		s.Delete(r.GV.String(), kind, "mass", "")
	}
	count := func(s *model.Snapshot) (n int) {
		for _, keys := range [][]model.Key{s.Services.SortedKeys(), s.Ingresses.SortedKeys(), s.Endpoints.SortedKeys(), s.Secrets.SortedKeys()} {
			for _, key := range keys {
				if key.Namespace == "mass" {
					n++
				}
			}
		}
		return n
	}
	f.until("nothing of the namespace", func(s *model.Snapshot) bool { return count(s) == 0 })
	for _, got := range f.snapshots()[n:] {
		if len(got.Problems) != 0 {
			t.Errorf("problems %v", got.Problems)
		}
		if got.Endpoints.Len() == 0 || len(got.Nodes) == 0 {
			t.Fatal("other namespaces lost something")
		}
	}
}

// testDefinitions changes, deletes and brings back the definition of a custom resource.
func testDefinitions(t *testing.T, s *kubetest.Server) {
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/addresspools.hythe.dev"
	pool := `{apiVersion: hythe.dev/v1alpha1, kind: AddressPool, metadata: {name: %s}, spec: {addresses: [%s]}}`
	f := follow(t, s.Config(), APIOptions{Kinds: ControllerKinds(), Status: true})
	world := f.until("a first Snapshot", anySnapshot)
	n := len(f.snapshots())
	hasPool := func(name string) func(*model.Snapshot) bool {
		return func(s *model.Snapshot) bool { return s.Pools[name] != nil }
	}
	if code, body := s.Do(http.MethodPatch, path, []byte(`{"spec":{"names":{"shortNames":["renamed"]}}}`)); code != http.StatusOK {
		t.Fatalf("change definition: %d: %s", code, body)
	}
	s.Apply(fmt.Sprintf(pool, "after-change", "203.0.113.128/28"))
	f.until("a pool made after the change", hasPool("after-change"))
	keeps(t, f, n, world)

	if code, body := s.Do(http.MethodDelete, path, nil); code >= 300 {
		t.Fatalf("delete definition: %d: %s", code, body)
	}
	got := f.until("a Problem", hasReason(ReasonKindNotServed, true))
	if len(got.Problems) != 1 || !strings.Contains(got.Problems[0].Message, "install the definition of addresspools.hythe.dev") {
		t.Errorf("problems %v", got.Problems)
	}
	s.Apply(service("without-definition"))
	got = f.until("a Service", hasService("without-definition"))
	if len(got.Claims) != len(world.Claims) {
		t.Errorf("%d claims without the definition of pools, want %d", len(got.Claims), len(world.Claims))
	}
	s.InstallCRDs(crds)
	s.Apply(fmt.Sprintf(pool, "again", "203.0.113.0/28"))
	f.until("the pool", hasPool("again"))
	f.until("no Problem", func(s *model.Snapshot) bool { return len(s.Problems) == 0 })
}

// testRestored brings the API server back with an etcd of before, in which every resource version is lower. A watch that
// went on where it was would hear of nothing until the versions have caught up.
func testRestored(t *testing.T, s *kubetest.Server) {
	f := follow(t, s.Config(), APIOptions{Kinds: AllKinds()})
	s.Apply(service("deleted-after-backup"))
	f.until("a Service", hasService("deleted-after-backup"))
	backup := s.Save()
	s.Delete("v1", "Service", "default", "deleted-after-backup")
	world := f.until("the Service deleted", func(s *model.Snapshot) bool { return !hasService("deleted-after-backup")(s) })
	more := world.Services.Len() + 5 // so that most Services are missing in the backup
	var lost []string
	for i := range more {
		lost = append(lost, fmt.Sprint("lost-", i))
		s.Apply(service(lost[i]))
	}
	f.until("the newest Service", hasService(lost[more-1]))
	n := len(f.snapshots())
	s.Restore(backup)
	s.StartAPI()
	s.Apply(service("after-restore"))
	f.until("what was made after the restore", hasService("after-restore"))
	f.until("what the backup has", hasService("deleted-after-backup"))
	f.until("doubt", hasReason("MassDeleteHeld", true))
	got := f.until("the end of doubt", hasReason("MassDeleteHeld", false))
	if hasService(lost[0])(got) || hasService(lost[more-1])(got) || got.Services.Len() != world.Services.Len()+2 {
		t.Errorf("%d Services, want those of the backup and one", got.Services.Len())
	}
	keeps(t, f, n, world)
}
