package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"hythe.dev/hythe/conformance/bench/stub"
	"hythe.dev/hythe/internal/lab/apiserver"
	"hythe.dev/hythe/internal/lab/topology"
)

const (
	// apiWriters is how many requests are under way at a time.
	apiWriters = 8
	// apiFillLimit is the most that it may take to write the world into a real API server.
	apiFillLimit = 3 * time.Minute
)

// churnAPI is the benchmark of endpoints that change in a real API server.
func (b *bench) churnAPI(ctx context.Context) (err error) {
	w, rate, length := world{services: 5000, endpoints: 50}, 50, 40*time.Second
	if b.short {
		w, rate, length = world{services: 50, endpoints: 50}, 50, 3*time.Second
	}
	if !b.wants(hythe) || b.results.has("churn-api", w.services, hythe) && !b.again {
		return nil
	}
	binaries, err := apiserver.Binaries()
	if err != nil {
		fmt.Println("churn-api is left out:", err)
		return nil
	}
	s, err := emptySpace("churn-api", b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	api, err := s.startAPI(ctx, binaries)
	if api != nil {
		defer api.end()
	}
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := api.fill(ctx, w); err != nil {
		return err
	}
	filled := time.Since(begin).Seconds()
	sender := sender{api: api}
	watch, err := record(w, rate, length, func(slice *discoveryv1.EndpointSlice) (func(), error) {
		data, err := encode(slice)
		return func() { sender.send(ctx, slice, data) }, err
	})
	if err != nil {
		return err
	}
	err = b.measureChurn(ctx, s, churning{bench: "churn-api", w: w, rate: rate}, watch)
	answers, failed := sender.wait()
	values := map[measurement][]float64{}
	for what, v := range map[string][]float64{"lag until the API answered, ms": answers, "all objects are written to the API, s": {filled}} {
		values[measurement{"churn-api", what, hythe, w.services, w.endpoints}] = v
	}
	return b.addAll(values, errors.Join(err, failed))
}

// A sender sends changes, none of which waits for another one.
type sender struct {
	api     *realAPI
	all     sync.WaitGroup
	mu      sync.Mutex
	answers []float64 // how long each took to be answered, in ms
	err     error     // of the last one that failed
}

func (s *sender) send(ctx context.Context, slice *discoveryv1.EndpointSlice, data []byte) {
	begin := time.Now()
	s.all.Go(func() {
		err := s.api.put(ctx, slice, data)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.err = err
			return
		}
		s.answers = append(s.answers, float64(time.Since(begin).Microseconds())/1000)
	})
}

func (s *sender) wait() ([]float64, error) {
	s.all.Wait()
	return s.answers, s.err
}

// A realAPI is an etcd and a kube-apiserver in a namespace.
type realAPI struct {
	*apiserver.Client
	processes []*exec.Cmd
}

// startAPI starts them and waits until they have Hythe's kinds. What it started is there with an error too.
func (s *space) startAPI(ctx context.Context, binaries string) (*realAPI, error) {
	plan := apiserver.Server{Dir: filepath.Join(s.dir, "api"), Binaries: binaries, Address: netip.MustParseAddrPort(apiAddr),
		EtcdPort: 2379, PeerPort: 2380, ServiceCIDR: netip.MustParsePrefix("10.96.0.0/12")}
	authority, err := apiserver.NewAuthority()
	if err != nil {
		return nil, err
	}
	config, err := authority.Kubeconfig(plan.URL(), "hythe-node") // bound to the node's role, as in a cluster
	if err == nil {
		err = os.WriteFile(s.kubeconfig, config, 0o600)
	}
	if err := errors.Join(err, plan.WriteKeys(authority)); err != nil {
		return nil, err
	}
	r := &realAPI{}
	if r.Client, err = apiserver.NewClient(authority, plan.URL(), func(ctx context.Context, network, address string) (net.Conn, error) {
		return topology.Dial(ctx, s.name, network, address)
	}); err != nil {
		return nil, err
	}
	for _, command := range [][]string{plan.Etcd(), plan.API()} {
		log, err := os.Create(filepath.Join(s.dir, filepath.Base(command[0])+".log"))
		if err != nil {
			return r, fmt.Errorf("open log: %w", err)
		}
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr = log, log
		err = topology.Start(s.name, cmd)
		if err := errors.Join(err, log.Close()); err != nil {
			return r, fmt.Errorf("start %s: %w", command[0], err)
		}
		r.processes = append(r.processes, cmd)
	}
	ctx, stop := context.WithTimeout(ctx, 90*time.Second)
	defer stop()
	for err = r.Ready(ctx); err != nil; err = r.Ready(ctx) {
		if ctx.Err() != nil {
			return r, fmt.Errorf("kube-apiserver is not ready, see %s: %w", s.dir, errors.Join(err, ctx.Err()))
		}
		time.Sleep(200 * time.Millisecond)
	}
	return r, apiserver.Install(ctx, apiserver.NewStore(r.Client))
}

func (r *realAPI) end() {
	for i := len(r.processes) - 1; i >= 0; i-- {
		_ = r.processes[i].Process.Kill()
		_ = r.processes[i].Wait()
	}
}

// encode is an object as the API server takes it from a client that says nothing of versions.
func encode(o stub.Object) ([]byte, error) {
	o.SetResourceVersion("")
	o.SetUID("")
	return json.Marshal(o)
}

// fill writes a world, and with it the namespaces that it is in.
func (r *realAPI) fill(ctx context.Context, w world) error {
	ctx, stop := context.WithTimeoutCause(ctx, apiFillLimit, fmt.Errorf("the API server took more than %v", apiFillLimit))
	defer stop()
	for i := range 50 {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, key(i).Namespace)
		if err := r.Do(ctx, http.MethodPost, apiserver.Path("v1", "Namespace", "", ""), "application/json", []byte(body), nil); err != nil {
			return fmt.Errorf("make namespace: %w", err)
		}
	}
	for _, o := range nodes() {
		if err := r.create(ctx, "v1", "Node", o); err != nil {
			return err
		}
	}
	var next atomic.Int64
	errs := make(chan error, apiWriters)
	for range apiWriters {
		go func() {
			for i := int(next.Add(1)) - 1; i < w.services; i = int(next.Add(1)) - 1 {
				err := r.create(ctx, "v1", "Service", w.service(i))
				if err == nil {
					err = r.create(ctx, "discovery.k8s.io/v1", "EndpointSlice", w.slice(i, w.addresses(i)))
				}
				if err != nil {
					stop()
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var all []error
	for range apiWriters {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func (r *realAPI) create(ctx context.Context, apiVersion, kind string, o stub.Object) error {
	data, err := encode(o)
	if err == nil {
		err = r.Do(ctx, http.MethodPost, apiserver.Path(apiVersion, kind, o.GetNamespace(), ""), "application/json", data, nil)
	}
	if err != nil {
		return fmt.Errorf("create %s %s: %w", kind, o.GetName(), err)
	}
	return nil
}

// put replaces an EndpointSlice, whatever its version.
func (r *realAPI) put(ctx context.Context, slice *discoveryv1.EndpointSlice, data []byte) error {
	err := r.Do(ctx, http.MethodPut, apiserver.Path("discovery.k8s.io/v1", "EndpointSlice", slice.Namespace, slice.Name), "application/json", data, nil)
	if err != nil {
		return fmt.Errorf("put EndpointSlice %s: %w", slice.Name, err)
	}
	return nil
}
