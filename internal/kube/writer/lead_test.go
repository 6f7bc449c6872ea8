package writer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
)

// A fakeLock is a Lease in memory.
type fakeLock struct {
	resourcelock.Interface
	record  resourcelock.LeaderElectionRecord
	updates int
	err     error
}

func (l *fakeLock) Describe() string { return "default/" + LeaseName }

func (l *fakeLock) Identity() string { return "this" }

func (l *fakeLock) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	out := l.record
	return &out, nil, l.err
}

func (l *fakeLock) Update(_ context.Context, r resourcelock.LeaderElectionRecord) error {
	l.record = r
	l.updates++
	return nil
}

// TestLeaseOfAnother checks that a leader which sees another's name in the Lease ends its work at once, and does not give
// back what is not its own: client-go's elector, woken after a stop, does so.
func TestLeaseOfAnother(t *testing.T) {
	ended := make(chan struct{}, 1)
	guard := time.AfterFunc(time.Hour, func() { ended <- struct{}{} })
	defer guard.Stop()
	inner := &fakeLock{}
	lock := newGuardedLock(inner, guard, slog.New(slog.DiscardHandler))
	see := func(holder string) {
		t.Helper()
		inner.record.HolderIdentity = holder
		if _, _, err := lock.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	see("other") // it competes: there is no work yet
	see("this")
	if err := lock.Update(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "this"}); err != nil {
		t.Fatal(err)
	}
	if len(ended) != 0 {
		t.Fatal("the work ended while the Lease is held")
	}
	see("other")
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the work goes on while another holds the Lease")
	}
	if err := lock.Update(t.Context(), resourcelock.LeaderElectionRecord{}); err == nil || inner.record.HolderIdentity != "other" {
		t.Errorf("the other's Lease was given back: %v, held by %q", err, inner.record.HolderIdentity)
	}
	see("this")
	if err := lock.Update(t.Context(), resourcelock.LeaderElectionRecord{}); err != nil || inner.record.HolderIdentity != "" {
		t.Errorf("the own Lease was not given back: %v", err)
	}
}

// TestLeaseRefused wants it said, once, that the Lease cannot be had; that there is none yet is no news.
func TestLeaseRefused(t *testing.T) {
	var log strings.Builder
	inner := &fakeLock{}
	lock := newGuardedLock(inner, time.NewTimer(time.Hour), slog.New(slog.NewTextHandler(&log, nil)))
	leases := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	for _, c := range []struct {
		err  error
		said int
	}{
		{apierrors.NewNotFound(leases, LeaseName), 0}, {apierrors.NewForbidden(leases, LeaseName, errors.New("of no role")), 1},
		{apierrors.NewForbidden(leases, LeaseName, errors.New("of no role")), 1}, {nil, 1}, {errors.New("another"), 2},
	} {
		inner.err = c.err
		_, _, _ = lock.Get(t.Context())
		if got := strings.Count(log.String(), LeaseName); got < c.said || c.said == 0 && got > 0 || strings.Count(log.String(), "\n") != c.said {
			t.Errorf("after %v:\n%s", c.err, log.String())
		}
	}
}

// TestControllerProcess is the controller that TestStoppedLeader starts, stops and lets go on: no test of its own.
func TestControllerProcess(t *testing.T) {
	name, kubeconfig := os.Getenv("HYTHE_TEST_CONTROLLER"), os.Getenv("HYTHE_TEST_KUBECONFIG")
	if name == "" {
		t.Skip("TestStoppedLeader runs it")
	}
	config, err := client.Config(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(config, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	api, err := kube.NewAPI(config, kube.APIOptions{Kinds: kube.ControllerKinds(), Status: true}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	snapshots := run.NewLatest[*model.Snapshot]()
	var newest struct {
		sync.Mutex
		*model.Snapshot
	}
	go func() {
		_ = api.Run(t.Context(), func(s *model.Snapshot) {
			newest.Lock()
			newest.Snapshot = s
			newest.Unlock()
			snapshots.Put(s)
		})
	}()
	_ = w.Lead(t.Context(), config, "default", name, func(ctx context.Context) error {
		newest.Lock()
		if newest.Snapshot != nil {
			snapshots.Put(newest.Snapshot)
		}
		newest.Unlock()
		return run.Sink(ctx, snapshots, nil, name, func(ctx context.Context, s *model.Snapshot) error {
			s = w.Current(s)
			_, err := w.Set(ctx, s, desired(s))
			return err
		})
	})
}

// leaseHolder is who holds the Lease, empty if nobody does.
func leaseHolder(s *kubetest.Server) string {
	code, body := s.Do(http.MethodGet, "/apis/coordination.k8s.io/v1/namespaces/default/leases/"+LeaseName, nil)
	var lease struct {
		Spec struct{ HolderIdentity string }
	}
	if code != http.StatusOK || json.Unmarshal(body, &lease) != nil {
		return ""
	}
	return lease.Spec.HolderIdentity
}

// TestStoppedLeader stops the leading one of two controllers in the middle of its writes until the other leads, and lets
// it go on. Then somebody deletes the Lease. Each Service gets one address and keeps it, and no two get one.
func TestStoppedLeader(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	bindRoles(s)
	s.Apply(`{apiVersion: hythe.dev/v1alpha1, kind: AddressPool, metadata: {name: wide}, spec: {addresses: [198.51.100.0/24]}}`)
	kubeconfig := s.Kubeconfig("hythe-controller")
	f := follow(t, s.Config(), kube.APIOptions{Kinds: kube.ControllerKinds(), Status: true})
	given := map[string]string{} // address by Service, as first seen
	var mu sync.Mutex
	f.each(func(now *model.Snapshot) { // each state that anybody could see
		mu.Lock()
		defer mu.Unlock()
		owners := map[string]string{}
		for _, key := range now.Services.SortedKeys() {
			in := now.Services.Get(key).Status.LoadBalancer.Ingress
			if len(in) == 0 && given[key.String()] != "" {
				t.Errorf("Service %s lost its address %s", key, given[key.String()])
			}
			for _, i := range in {
				if other := owners[i.IP]; other != "" {
					t.Errorf("%s and %s have the address %s", other, key, i.IP)
				}
				owners[i.IP] = key.String()
				if before := given[key.String()]; before != "" && before != i.IP {
					t.Errorf("Service %s had %s and has %s", key, before, i.IP)
				}
				given[key.String()] = i.IP
			}
		}
	})
	processes := map[string]*exec.Cmd{}
	for _, name := range []string{"one", "two"} {
		c := exec.Command(os.Args[0], "-test.run=^TestControllerProcess$", "-test.timeout=5m")
		c.Env = append(os.Environ(), "HYTHE_TEST_CONTROLLER="+name, "HYTHE_TEST_KUBECONFIG="+kubeconfig)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		processes[name] = c
	}
	eventually(t, "a leader", func() bool { return leaseHolder(s) != "" })
	first := leaseHolder(s)
	second := map[string]string{"one": "two", "two": "one"}[first]
	count := 0
	more := func(n int) {
		for range n {
			s.Apply(loadBalancer(fmt.Sprint("svc-", count)))
			count++
		}
	}
	served := func() bool {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for key := range given {
			if strings.HasPrefix(key, "default/svc-") {
				n++
			}
		}
		return n == count
	}
	more(10)
	eventually(t, "the first addresses", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(given) > 2
	})
	_ = processes[first].Process.Signal(syscall.SIGSTOP)
	more(10)
	eventually(t, "the other leads", func() bool { return leaseHolder(s) == second })
	eventually(t, "addresses by the other", served)
	_ = processes[first].Process.Signal(syscall.SIGCONT)
	for range 20 { // the one who wakes believes to lead for a moment
		more(1)
		if holder := leaseHolder(s); holder != second {
			t.Errorf("the Lease of %s is held by %q: the one who woke took it", second, holder)
		}
	}
	eventually(t, "all addresses", served)

	s.Delete("coordination.k8s.io/v1", "Lease", "default", LeaseName)
	more(5)
	eventually(t, "a new Lease", func() bool { return leaseHolder(s) != "" })
	more(5)
	eventually(t, "all addresses after the Lease was deleted", served)
	checkClaims(t, s)
	f.each(func(*model.Snapshot) {})
	t.Run("deleted in use", func(t *testing.T) { testDeletedInUse(t, s) })
}

// testDeletedInUse deletes a pool with addresses in use, which stay, and a namespace with all in it, whose claims go.
func testDeletedInUse(t *testing.T, s *kubetest.Server) {
	s.Apply(`{apiVersion: v1, kind: Service, metadata: {name: web, namespace: leaves},
spec: {type: LoadBalancer, loadBalancerClass: hythe.dev/lb, ports: [{port: 80}]}}`)
	var ip string
	eventually(t, "a claim for the Service", func() bool {
		ip = claimOf(t, s, "leaves/web")
		return ip != ""
	})
	before := serviceIP(s, "svc-0")
	s.Delete(v1alpha1.APIVersion, "AddressPool", "", "wide")
	s.Apply(loadBalancer("without-pool"))
	quiet(t, s)
	if now := serviceIP(s, "svc-0"); now != before || claimOf(t, s, "default/svc-0") != before {
		t.Errorf("Service svc-0 has %q, claim %q, after its pool was deleted; it had %s", now, claimOf(t, s, "default/svc-0"), before)
	}
	if got := serviceIP(s, "without-pool"); got != "" {
		t.Errorf("a new Service got %s of a pool that is deleted", got)
	}
	s.Delete("v1", "Namespace", "", "leaves") // Events cannot be written there any more
	s.Delete("v1", "Service", "leaves", "web")
	eventually(t, "no claim of the namespace", func() bool { return claimOf(t, s, "leaves/web") == "" })
	s.Apply(`{apiVersion: hythe.dev/v1alpha1, kind: AddressPool, metadata: {name: wide}, spec: {addresses: [198.51.100.0/24]}}`)
	eventually(t, "an address from the pool again", func() bool { return serviceIP(s, "without-pool") != "" })
	checkClaims(t, s)
}

// claimOf is the address that is claimed for a Service, empty if there is none.
func claimOf(t *testing.T, s *kubetest.Server, service string) string {
	t.Helper()
	var claims v1alpha1.AddressClaimList
	_, body := s.Do(http.MethodGet, "/apis/hythe.dev/v1alpha1/addressclaims", nil)
	if err := json.Unmarshal(body, &claims); err != nil {
		t.Fatal(err)
	}
	for _, c := range claims.Items {
		for _, r := range c.Spec.Services {
			if r.Namespace+"/"+r.Name == service {
				return c.Spec.Address
			}
		}
	}
	return ""
}

// checkClaims checks that each address in a status has its claim, and that no Service has two.
func checkClaims(t *testing.T, s *kubetest.Server) {
	t.Helper()
	var services corev1.ServiceList
	var claims v1alpha1.AddressClaimList
	for path, into := range map[string]any{"/api/v1/services": &services, "/apis/hythe.dev/v1alpha1/addressclaims": &claims} {
		_, body := s.Do(http.MethodGet, path, nil)
		if err := json.Unmarshal(body, into); err != nil {
			t.Fatal(err)
		}
	}
	owner := map[string]string{}
	claimed := map[string]string{}
	for _, c := range claims.Items {
		for _, r := range c.Spec.Services {
			name := r.Namespace + "/" + r.Name
			if claimed[name] != "" {
				t.Errorf("Service %s has claims of %s and %s", name, claimed[name], c.Spec.Address)
			}
			claimed[name], owner[c.Spec.Address] = c.Spec.Address, name
		}
	}
	for _, o := range services.Items {
		for _, i := range o.Status.LoadBalancer.Ingress {
			if name := o.Namespace + "/" + o.Name; owner[i.IP] != name {
				t.Errorf("Service %s has %s, which is claimed for %q", name, i.IP, owner[i.IP])
			}
		}
	}
}
