package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/examples"
	"hythe.dev/hythe/internal/lab/cluster"
	"hythe.dev/hythe/internal/lab/kubelet"
	"hythe.dev/hythe/internal/lab/topology"
)

const (
	gatewayLabel = "hythe.dev/gateway"
	// poll is how often the manifests folder is looked at.
	poll         = 100 * time.Millisecond
	processGrace = 5 * time.Second
)

// A Supervisor runs a lab. The exported fields are set before Run.
type Supervisor struct {
	Lab       Lab
	Manifests string
	// Source is SourceFiles or SourceAPI.
	Source string
	// Fill adds backends and certificates that Ingresses only name.
	Fill bool
	// Executable is the path of hythe, Envoy that of Envoy.
	Executable, Envoy string
	Log               *slog.Logger

	plan    topology.Plan
	nodes   []cluster.Node
	system  *cluster.Objects
	files   cluster.Files
	ca      *cluster.CA
	kubelet *kubelet.Kubelet
	updates chan kubelet.Update
	source  source

	mu        sync.Mutex
	processes map[string]*kubelet.Process
	checks    map[string]func(context.Context) error // of processes that are not Hythe's
	said      map[string]string                      // the last error of each part, which is logged once
	objects   *cluster.Objects                       // with all additions
	services  map[cluster.Key]*corev1.Service
	workloads map[cluster.WorkloadKey]*cluster.Workload
	additions cluster.Additions
	filesErr  error
	pods      map[cluster.Key]*cluster.Pod
	running   map[cluster.Key]*kubelet.Running
	messages  map[cluster.Key]string
	next      int
}

// Run makes the lab and runs it until ctx is done; then it takes everything down.
func (s *Supervisor) Run(ctx context.Context) error {
	unlock, err := s.Lab.lock()
	if err != nil {
		return err
	}
	defer unlock()
	defer func() {
		if err := s.Lab.clean(false); err != nil {
			s.Log.Error("lab is not taken down", "error", err)
		}
	}()
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.startSource(ctx); err != nil {
		return err
	}
	s.put(ctx, partNodes, s.nodeObjects())
	s.readManifests(ctx)
	s.startProcesses(ctx)
	failed := make(chan error, 1)
	go func() { failed <- s.serveAPI(ctx) }()
	s.reconcile(ctx)
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case u := <-s.updates:
			s.apply(u)
			for range len(s.updates) {
				s.apply(<-s.updates)
			}
			s.reconcile(ctx)
		case <-tick.C:
			if s.readManifests(ctx) {
				s.reconcile(ctx)
			}
			s.mu.Lock()
			s.source.again(ctx)
			s.mu.Unlock()
		}
	}
}

// prepare makes machines, folders, keys and the Node objects.
func (s *Supervisor) prepare() error {
	s.plan = topology.Build(s.Lab.Name)
	s.processes = map[string]*kubelet.Process{}
	s.checks, s.said = map[string]func(context.Context) error{}, map[string]string{}
	s.pods = map[cluster.Key]*cluster.Pod{}
	s.running = map[cluster.Key]*kubelet.Running{}
	s.messages = map[cluster.Key]string{}
	s.updates = make(chan kubelet.Update, 1024)
	s.files.Dir = s.Manifests
	if err := s.Lab.makeFolders(s.plan.Nodes); err != nil {
		return err
	}
	if err := s.Lab.recordSupervisor(); err != nil {
		return err
	}
	if err := topology.Up(s.plan); err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	if err := os.WriteFile(s.Lab.key(), []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
		return fmt.Errorf("write heartbeat key: %w", err)
	}
	var err error
	if s.ca, err = cluster.NewCA(s.Lab.CA(), time.Now()); err != nil {
		return err
	}
	if s.system, err = systemObjects(); err != nil {
		return err
	}
	s.kubelet = &kubelet.Kubelet{
		Lab: s.Lab.Name, Node: s.Lab.node, Executable: s.Executable, Envoy: s.Envoy,
		Logs: s.Lab.Logs(), PIDs: s.Lab.pids(), Log: s.Log,
		Report: func(u kubelet.Update) { s.updates <- u },
	}
	s.services = s.readServices()
	return nil
}

// startSource makes what Hythe reads the cluster from.
func (s *Supervisor) startSource(ctx context.Context) error {
	if s.Source != SourceAPI {
		s.source = &fileSource{manifests: s.Manifests, state: s.Lab.State(), errs: map[string]error{}}
		return nil
	}
	a, err := newAPISource(s.Lab)
	if err != nil {
		return err
	}
	s.source = a
	s.startBacking(ctx, a)
	if err := a.start(ctx); err != nil {
		return err
	}
	go func() {
		if err := a.follow(ctx, s.Log); err != nil {
			s.Log.Error("the API server is not watched", "error", err)
		}
	}()
	return nil
}

// systemObjects are the example's gateway parts, for folders that have none.
func systemObjects() (*cluster.Objects, error) {
	data, err := examples.Files().ReadFile("hythe-system.yaml")
	if err != nil {
		return nil, fmt.Errorf("read system manifests: %w", err)
	}
	o := cluster.NewObjects()
	if err := cluster.Parse(o, data); err != nil {
		return nil, fmt.Errorf("read system manifests: %w", err)
	}
	return o, nil
}

// readServices returns the Services of a former run, for their addresses.
func (s *Supervisor) readServices() map[cluster.Key]*corev1.Service {
	o := cluster.NewObjects()
	data, err := os.ReadFile(filepath.Join(s.Lab.State(), "services.yaml"))
	if err == nil {
		err = cluster.Parse(o, data)
	}
	if err != nil && !os.IsNotExist(err) {
		s.Log.Warn("former Services cannot be read, all get new addresses", "error", err)
	}
	return o.Services
}

func (s *Supervisor) nodeObjects() []any {
	var out []any
	for _, n := range s.plan.Nodes {
		labels := map[string]string{"kubernetes.io/hostname": n.Name, "kubernetes.io/os": "linux"}
		if n.Gateway {
			labels[gatewayLabel] = "true"
		}
		s.nodes = append(s.nodes, cluster.Node{Name: n.Name, Labels: labels})
		out = append(out, corev1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: labels},
			Spec:       corev1.NodeSpec{PodCIDR: n.PodCIDR.String(), PodCIDRs: []string{n.PodCIDR.String()}},
			Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.Address.String()}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		})
	}
	return out
}

// put makes objects all that a part of the cluster has.
func (s *Supervisor) put(ctx context.Context, part string, objects []any) {
	err := s.source.put(ctx, part, objects)
	if err == nil {
		delete(s.said, part)
	} else if s.said[part] != err.Error() {
		s.said[part] = err.Error()
		s.Log.Error("not all objects are written", "part", part, "error", err)
	}
}

// readManifests reads what changed and says whether anything did.
func (s *Supervisor) readManifests(ctx context.Context) bool {
	changed, err := s.files.Poll()
	if err != nil && (s.filesErr == nil || err.Error() != s.filesErr.Error()) {
		s.Log.Warn("manifests cannot be read, the last good state stays", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filesErr = err
	if !changed {
		return false
	}
	s.objects = s.files.Objects()
	s.additions = cluster.Add(s.objects, s.system, s.ca, s.Fill)
	s.objects.Merge(s.additions.Objects)
	s.services = s.source.complete(s.objects.Services, s.services)
	s.workloads = map[cluster.WorkloadKey]*cluster.Workload{}
	for k, w := range s.objects.Workloads {
		if ok, reason := cluster.Runs(w); ok {
			s.workloads[k] = w
		} else {
			s.additions.Skipped = append(s.additions.Skipped, fmt.Sprintf("%s %s/%s: %s", k.Kind, k.Namespace, k.Name, reason))
		}
	}
	s.put(ctx, partManifests, s.objects.List())
	s.put(ctx, partFill, s.additions.List())
	services := make([]any, 0, len(s.services))
	for _, k := range slices.SortedFunc(maps.Keys(s.services), compareKeys) {
		services = append(services, s.services[k])
	}
	s.put(ctx, partServices, services)
	return true
}

func compareKeys(a, b cluster.Key) int { return strings.Compare(a.String(), b.String()) }

// apply takes over how a pod is.
func (s *Supervisor) apply(u kubelet.Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pods[u.Key]
	if p == nil || p.Number != u.Number {
		return
	}
	if u.Gone {
		delete(s.pods, u.Key)
		delete(s.running, u.Key)
		delete(s.messages, u.Key)
		return
	}
	p.Address, p.Ready = u.Address, u.Ready
	s.messages[u.Key] = u.Message
}

// reconcile starts and ends pods, and writes the EndpointSlices before a pod that ends hears of it.
func (s *Supervisor) reconcile(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pods := slices.Collect(maps.Values(s.pods))
	action := cluster.Step(s.workloads, pods, s.nodes, s.next)
	for _, k := range action.End {
		s.pods[k].Terminating = true
	}
	var slicesNow []any
	for _, slice := range cluster.Slices(s.services, slices.SortedFunc(maps.Values(s.pods), func(a, b *cluster.Pod) int { return a.Number - b.Number })) {
		slicesNow = append(slicesNow, slice)
	}
	s.put(ctx, partSlices, slicesNow)
	for _, k := range action.End {
		s.Log.Info("pod ends", "pod", k.String())
		s.running[k].End()
	}
	for _, p := range action.Start {
		s.Log.Info("pod starts", "pod", p.Key.String(), "node", p.Node)
		s.pods[p.Key] = p
		ports := make([][]corev1.ContainerPort, len(p.Spec.Containers))
		for i := range ports {
			ports[i] = cluster.Listens(p, i, s.services)
		}
		s.running[p.Key] = s.kubelet.Start(ctx, *p, ports)
		s.next = max(s.next, p.Number+1)
	}
}

// startProcesses starts Hythe: the controller, and on each node what belongs there.
func (s *Supervisor) startProcesses(ctx context.Context) {
	s.startProcess(ctx, topology.Control, "controller", s.source.args(topology.Control, "controller"))
	for _, n := range s.plan.Nodes {
		dirs := s.Lab.node(n.Name)
		s.startProcess(ctx, n.Name, "node", append([]string{
			"--node", n.Name, "--data", s.Lab.path("nodes", n.Name, "data"), "--run", dirs.Run,
			"--cni-conf-dir", dirs.CNIConf, "--cni-bin-dir", dirs.CNIBin, "--heartbeat-key", s.Lab.key(), "--interface", "eth0",
			"--boot-id", s.Lab.bootID(n.Name),
		}, s.source.args(n.Name, "node")...))
		if n.Gateway {
			s.startProcess(ctx, n.Name, "gateway", append([]string{
				"--node", n.Name, "--xds-socket", dirs.XDSSocket, "--envoy-admin", filepath.Join(dirs.Run, "envoy-*.sock"),
			}, s.source.args(n.Name, "gateway")...))
		}
	}
}

func (s *Supervisor) startProcess(ctx context.Context, role, command string, args []string) {
	name := role + "/" + command
	p := &kubelet.Process{
		Name: name, Namespace: s.Lab.Namespace(role), LogFile: filepath.Join(s.Lab.Logs(), role+"."+command+".log"),
		Command: slices.Concat([]string{s.Executable, command}, args, []string{"--admin", "unix:" + s.Lab.Admin(name)}),
		PIDs:    s.Lab.pids(), Grace: processGrace, Socket: s.Lab.Admin(name), Log: s.Log,
	}
	s.mu.Lock()
	s.processes[name] = p
	s.mu.Unlock()
	go p.Run(ctx)
}

// process finds a process by name; "node1/envoy" is the Envoy on that node.
func (s *Supervisor) process(name string) (*kubelet.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.processes[name]; p != nil {
		return p, nil
	}
	if node, ok := strings.CutSuffix(name, "/envoy"); ok {
		for k, r := range s.running {
			if s.pods[k].Node == node && r.IsGateway() && len(r.Containers()) > 0 {
				return r.Containers()[0], nil
			}
		}
	}
	return nil, fmt.Errorf("no process %s in the lab", name)
}
