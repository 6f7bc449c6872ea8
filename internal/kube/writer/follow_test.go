package writer

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/model"
)

const crds = "../../../charts/hythe/crds"

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// newServer runs an API server with Hythe's custom resources, the examples and the API source's test data.
func newServer(t *testing.T) *kubetest.Server {
	t.Helper()
	s := kubetest.Start(t)
	s.InstallCRDs(crds)
	s.CreateFiles("../testdata/api")
	s.CreateFiles("../../../examples")
	return s
}

// A follower remembers the newest Snapshot.
type follower struct {
	t    *testing.T
	stop func()

	mu    sync.Mutex
	last  *model.Snapshot
	check func(*model.Snapshot)
}

func follow(t *testing.T, config *rest.Config, options kube.APIOptions) *follower {
	t.Helper()
	api, err := kube.NewAPI(config, options, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = api.Run(ctx, func(s *model.Snapshot) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.last = s
			if f.check != nil {
				f.check(s)
			}
		})
	}()
	f.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(f.stop)
	return f
}

// each calls check with the newest Snapshot and all after it.
func (f *follower) each(check func(*model.Snapshot)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.check = check
	if f.last != nil {
		check(f.last)
	}
}

// until waits for a Snapshot with a property and returns it.
func (f *follower) until(what string, is func(*model.Snapshot) bool) *model.Snapshot {
	f.t.Helper()
	var found *model.Snapshot
	eventually(f.t, what, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.last != nil && is(f.last) {
			found = f.last
		}
		return found != nil
	})
	return found
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 40 s: %s", what)
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

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
