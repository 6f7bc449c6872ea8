package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/lab/apiserver"
	"hythe.dev/hythe/internal/lab/cluster"
	"hythe.dev/hythe/internal/lab/kubelet"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/model"
)

// Where Hythe's processes have the cluster from.
const (
	SourceFiles = "files"
	SourceAPI   = "api"
)

// Parts of the cluster that the lab writes.
const (
	partNodes     = "nodes"
	partManifests = "manifests" // with additions, without Services
	partFill      = "fill"      // the additions alone
	partServices  = "services"
	partSlices    = "endpointslices"
)

// A source is where the cluster's objects are written for Hythe's processes, and where they write what they have to say.
type source interface {
	// complete returns Services with what the lab, in the place of Kubernetes, chooses.
	complete(services, before map[cluster.Key]*corev1.Service) map[cluster.Key]*corev1.Service
	// put makes objects all that a part has.
	put(ctx context.Context, part string, objects []any) error
	// again tries what put could not do, and says whether it did so.
	again(ctx context.Context) bool
	// err says what of all parts is not there as it should be.
	err() error
	// args tell a process ("node1/gateway") where the cluster is.
	args(role, command string) []string
	// snapshot is the cluster with what Hythe wrote.
	snapshot() (*model.Snapshot, error)
}

// A fileSource is the manifests folder, which Hythe reads itself, and the state folder beside it.
type fileSource struct {
	manifests, state string
	errs             map[string]error
}

func (f *fileSource) complete(services, before map[cluster.Key]*corev1.Service) map[cluster.Key]*corev1.Service {
	return cluster.Complete(services, before)
}

func (f *fileSource) put(_ context.Context, part string, objects []any) error {
	if part == partManifests {
		return nil
	}
	_, err := kube.WriteObjects(filepath.Join(f.state, part+".yaml"), objects)
	f.errs[part] = err
	return err
}

func (f *fileSource) again(context.Context) bool { return false }

func (f *fileSource) err() error {
	var errs []error
	for _, part := range []string{partNodes, partFill, partServices, partSlices} {
		errs = append(errs, f.errs[part])
	}
	return errors.Join(errs...)
}

func (f *fileSource) args(string, string) []string {
	return []string{"--manifests", f.manifests, "--state", f.state}
}

func (f *fileSource) snapshot() (*model.Snapshot, error) {
	files, err := filepath.Glob(filepath.Join(f.state, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("list state: %w", err)
	}
	// Its objects are in the other files already, whole.
	files = slices.DeleteFunc(files, func(name string) bool { return filepath.Base(name) == kube.StatusFile })
	return kube.Load(files...)
}

// An apiSource is a kube-apiserver with its etcd on the control machine.
type apiSource struct {
	lab    Lab
	server apiserver.Server
	client *apiserver.Client
	store  *apiserver.Store
	newest atomic.Pointer[model.Snapshot]
}

// apiStart is how long the API server may take to answer, and Hythe's kinds to be served after that.
const apiStart = time.Minute

// newAPISource plans the API server and writes its keys and kubeconfigs.
func newAPISource(l Lab) (*apiSource, error) {
	a := &apiSource{lab: l}
	binaries, err := apiserver.Binaries()
	if err != nil {
		return nil, err
	}
	a.server = apiServer(l)
	a.server.Binaries = binaries
	authority, err := apiserver.NewAuthority()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(a.server.WriteKeys(authority), a.server.Kubeconfigs(authority)); err != nil {
		return nil, err
	}
	if err := l.mountMemory(); err != nil {
		return nil, err
	}
	if a.client, err = apiserver.NewClient(authority, a.server.URL(), l.dialControl); err != nil {
		return nil, err
	}
	a.store = apiserver.NewStore(a.client)
	return a, nil
}

func apiServer(l Lab) apiserver.Server {
	return apiserver.Server{
		Dir: l.path("api"), Address: netip.AddrPortFrom(topology.ControlAddress(), 6443), EtcdPort: 2379, PeerPort: 2380,
		ServiceCIDR: cluster.ServiceCIDR(), PublishOwnEndpoints: true,
	}
}

// dialControl connects as the control machine does.
func (l Lab) dialControl(ctx context.Context, network, address string) (net.Conn, error) {
	return topology.Dial(ctx, l.Namespace(topology.Control), network, address)
}

// commands are the processes of the API server.
func (a *apiSource) commands() map[string][]string {
	return map[string][]string{"etcd": a.server.Etcd(), "kube-apiserver": a.server.API()}
}

// checks say whether they are ready.
func (a *apiSource) checks() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"etcd": func(ctx context.Context) error {
			conn, err := a.lab.dialControl(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", a.server.EtcdPort))
			if err == nil {
				conn.Close()
			}
			return err
		},
		"kube-apiserver": a.client.Ready,
	}
}

// start waits until the API server is ready and installs Hythe's kinds and roles.
func (a *apiSource) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, apiStart)
	defer cancel()
	for {
		err := a.client.Ready(ctx)
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start API server: %w (logs: %s)", err, a.lab.Logs())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return apiserver.Install(ctx, a.store)
}

// follow keeps the Snapshot true until ctx is done.
func (a *apiSource) follow(ctx context.Context, log *slog.Logger) error {
	return a.lab.watch(ctx, log, a.newest.Store)
}

// watch asks the lab's API server as an administrator.
func (l Lab) watch(ctx context.Context, log *slog.Logger, handle func(*model.Snapshot)) error {
	config, err := client.Config(apiServer(l).Kubeconfig("admin"))
	if err != nil {
		return err
	}
	config.Dial = l.dialControl
	api, err := kube.NewAPI(config, kube.APIOptions{Kinds: kube.AllKinds(), Status: true, OpaqueSecrets: true}, log)
	if err != nil {
		return err
	}
	return api.Run(ctx, handle)
}

func (a *apiSource) complete(services, _ map[cluster.Key]*corev1.Service) map[cluster.Key]*corev1.Service {
	return cluster.Default(services) // the API server gives addresses and ports
}

func (a *apiSource) put(ctx context.Context, part string, objects []any) error {
	if part == partFill { // it is in the manifests' part
		return nil
	}
	return a.store.Put(ctx, part, objects)
}

func (a *apiSource) again(ctx context.Context) bool { return a.store.Again(ctx) }

func (a *apiSource) err() error { return a.store.Err() }

func (a *apiSource) args(role, command string) []string {
	args := []string{"--kubeconfig", a.server.Kubeconfig(command)}
	switch command {
	case "gateway": // its Secrets are kept in memory only
		args = append(args, "--cache", a.lab.path("memory", role))
	case "node":
		args = append(args, "--cache", a.lab.path("nodes", role, "cache"))
	}
	return args
}

func (a *apiSource) snapshot() (*model.Snapshot, error) {
	if s := a.newest.Load(); s != nil {
		return s, nil
	}
	return nil, errors.New("nothing was read from the API server yet")
}

// Snapshot reads the cluster once, as Hythe's processes see it.
func (l Lab) Snapshot(ctx context.Context, manifests string) (*model.Snapshot, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var first *model.Snapshot
	handle := func(s *model.Snapshot) {
		if first == nil {
			first = s
		}
		cancel()
	}
	log := slog.New(slog.DiscardHandler)
	var err error
	if _, statErr := os.Stat(apiServer(l).Kubeconfig("admin")); statErr == nil {
		err = l.watch(ctx, log, handle)
	} else {
		err = kube.NewFiles(manifests, l.State(), log).Run(ctx, handle)
	}
	if first != nil {
		return first, nil
	}
	return nil, fmt.Errorf("read the cluster: %w", err)
}

// startBacking starts the processes of the API server.
func (s *Supervisor) startBacking(ctx context.Context, a *apiSource) {
	checks := a.checks()
	for name, command := range a.commands() {
		full := topology.Control + "/" + name
		p := &kubelet.Process{
			Name: full, Namespace: s.Lab.Namespace(topology.Control), LogFile: filepath.Join(s.Lab.Logs(), topology.Control+"."+name+".log"),
			Command: command, PIDs: s.Lab.pids(), Grace: processGrace, Log: s.Log,
		}
		s.mu.Lock()
		s.processes[full], s.checks[full] = p, checks[name]
		s.mu.Unlock()
		go p.Run(ctx)
	}
}
