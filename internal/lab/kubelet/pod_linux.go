package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/lab/cluster"
	"hythe.dev/hythe/internal/lab/topology"
)

// A Kubelet runs the pods of all nodes. The fields are set before the first Run.
type Kubelet struct {
	// Lab is the lab's name.
	Lab string
	// Node tells where a node keeps its things.
	Node func(name string) NodeDirs
	// Executable is the path of hythe, Envoy that of Envoy.
	Executable, Envoy string
	// Logs and PIDs are folders for all processes.
	Logs, PIDs string
	Log        *slog.Logger
	// Report is told how pods are; it must not block for long.
	Report func(Update)
}

// NodeDirs is where a node keeps its things.
type NodeDirs struct {
	CNIConf, CNIBin, CNICache string
	// XDSSocket is where the node's gateway serves its Envoy.
	XDSSocket string
	// Run is a folder for other files.
	Run string
}

// An Update is how a pod is.
type Update struct {
	Key cluster.Key
	// Number tells apart pods that have the same name one after the other.
	Number  int
	Address netip.Addr
	Ready   bool
	// Gone is the last update.
	Gone bool
	// Message says what the pod waits for.
	Message string
}

// A Running pod.
type Running struct {
	pod  *cluster.Pod
	k    *Kubelet
	end  chan struct{}
	once sync.Once

	mu         sync.Mutex
	containers []*Process
	update     Update
	sandbox    int           // counts what the pod was made anew
	off, on    chan struct{} // closed when the machine goes off, and on
	down       chan struct{} // closed when nothing of the pod runs on a machine that is off
	gone       chan struct{} // closed when the pod has ended
}

// Start runs a pod until it is ended, or ctx is done. ports are the ports that each container listens on.
func (k *Kubelet) Start(ctx context.Context, pod cluster.Pod, ports [][]corev1.ContainerPort) *Running {
	r := &Running{
		pod: &pod, k: k, end: make(chan struct{}), update: Update{Key: pod.Key, Number: pod.Number},
		off: make(chan struct{}), down: make(chan struct{}), gone: make(chan struct{}),
	}
	go r.run(ctx, ports)
	return r
}

// End makes the pod terminate, gracefully.
func (r *Running) End() { r.once.Do(func() { close(r.end) }) }

// Containers are the processes of the pod, in the order of its containers; none before it is attached.
func (r *Running) Containers() []*Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.containers)
}

// run is the life of the pod.
func (r *Running) run(ctx context.Context, ports [][]corev1.ContainerPort) {
	defer close(r.gone)
	ns := r.k.namespace(r.pod)
	for again := true; again; again = r.restarted(ctx) {
		if r.setup(ctx, ns) {
			r.serve(ctx, ports)
		}
	}
	if ctx.Err() != nil {
		return // the lab goes down and takes everything with it
	}
	r.teardown(ctx, ns)
	r.report(func(u *Update) { u.Gone, u.Ready = true, false })
}

func (r *Running) report(change func(*Update)) {
	r.mu.Lock()
	before := r.update
	change(&r.update)
	now := r.update
	r.mu.Unlock()
	if now != before {
		r.k.Report(now)
	}
}

// setup makes the pod's namespace and attaches it; it tries until it works or the pod ends.
func (r *Running) setup(ctx context.Context, ns string) bool {
	const retry = 100 * time.Millisecond
	for {
		err := r.trySetup(ctx, ns)
		if err == nil {
			return true
		}
		r.report(func(u *Update) { u.Message = err.Error() })
		select {
		case <-ctx.Done():
			return false
		case <-r.end:
			return false
		case <-r.poweredOff():
			return false
		case <-time.After(retry):
		}
	}
}

func (r *Running) trySetup(ctx context.Context, ns string) error {
	if _, err := os.Lstat(topology.Path(ns)); err != nil {
		if err := topology.CreateNamespace(ns); err != nil {
			return err
		}
	}
	addr, err := r.k.attach(ctx, r.pod, r.containerID())
	if err != nil {
		return err
	}
	r.report(func(u *Update) { u.Address, u.Message = addr, "starts" })
	return nil
}

// serve runs the containers until the pod ends and all of them did.
func (r *Running) serve(ctx context.Context, ports [][]corev1.ContainerPort) {
	all := make(chan struct{})
	probing, stopProbing := context.WithCancel(ctx)
	var wg, probe sync.WaitGroup
	grace := time.Duration(deref(r.pod.Spec.TerminationGracePeriodSeconds, 30)) * time.Second
	for i := range r.pod.Spec.Containers {
		p, err := r.process(i, ports[i], grace)
		if err != nil {
			r.k.Log.Error("container cannot be run", "pod", r.pod.Key.String(), "error", err)
			r.report(func(u *Update) { u.Message = err.Error() })
			continue
		}
		r.mu.Lock()
		r.containers = append(r.containers, p)
		r.mu.Unlock()
		wg.Go(func() { r.container(ctx, p, r.pod.Spec.Containers[i]) })
	}
	probe.Go(func() { r.probe(probing, ports) })
	go func() {
		wg.Wait()
		close(all)
	}()
	select {
	case <-ctx.Done():
	case <-r.end:
	case <-r.poweredOff():
	}
	<-all
	stopProbing()
	probe.Wait()
}

// container runs one container until the pod ends, and through its preStop hook.
func (r *Running) container(ctx context.Context, p *Process, c corev1.Container) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-running.Done():
		case <-r.poweredOff():
			kill(p, stop)
		case <-r.end:
			r.drain(running, p, c)
			sleep(running, preStop(c))
			stop()
		}
	}()
	p.Run(running)
}

// drain runs a preStop hook that is a command of Hythe's own, "hythe gateway drain", on the container's Envoy.
func (r *Running) drain(ctx context.Context, p *Process, c corev1.Container) {
	args := hytheHook(c)
	if args == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.Grace)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.k.Executable, append(args, "--admin-socket", r.adminSocket())...)
	out, err := cmd.CombinedOutput()
	r.k.Log.Info("preStop hook ended", "pod", r.pod.Key.String(), "error", err, "output", string(out))
}

// hytheHook is the arguments of a preStop hook that calls hythe, nil for another one or none.
func hytheHook(c corev1.Container) []string {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Exec == nil {
		return nil
	}
	command := c.Lifecycle.PreStop.Exec.Command
	if len(command) < 2 || filepath.Base(command[0]) != "hythe" {
		return nil
	}
	return slices.Clone(command[1:])
}

// preStop is how long a container's hook takes: the native sleep, or the command sleep that it once was.
func preStop(c corev1.Container) time.Duration {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
		return 0
	}
	h := c.Lifecycle.PreStop
	if h.Sleep != nil {
		return time.Duration(h.Sleep.Seconds) * time.Second
	}
	if h.Exec != nil {
		var seconds int
		command := strings.Join(h.Exec.Command, " ")
		if i := strings.Index(command, "sleep "); i >= 0 {
			_, _ = fmt.Sscanf(command[i:], "sleep %d", &seconds)
		}
		return time.Duration(seconds) * time.Second
	}
	return 0
}

// process makes the process of a container.
func (r *Running) process(i int, ports []corev1.ContainerPort, grace time.Duration) (*Process, error) {
	c := r.pod.Spec.Containers[i]
	name := r.pod.Key.Namespace + "." + r.pod.Key.Name + "." + c.Name
	p := &Process{
		Name: name, Namespace: r.k.namespace(r.pod), LogFile: filepath.Join(r.k.Logs, name+".log"),
		PIDs: r.k.PIDs, Grace: grace, Log: r.k.Log,
	}
	if cluster.IsEnvoy(c) {
		command, err := r.envoyCommand()
		p.Command = command
		return p, err
	}
	p.Command = []string{
		r.k.Executable, "lab", "echo", "--namespace", r.pod.Key.Namespace, "--pod", r.pod.Key.Name, "--node", r.pod.Node,
		"--container", c.Name, "--version", imageTag(c.Image), "--grace", grace.String(),
	}
	for _, port := range ports {
		flag := "--" + strings.ToLower(string(cmp.Or(port.Protocol, corev1.ProtocolTCP)))
		if flag == "--tcp" || flag == "--udp" {
			p.Command = append(p.Command, flag, fmt.Sprint(port.ContainerPort))
		}
	}
	return p, nil
}

func imageTag(image string) string {
	name := image[strings.LastIndexByte(image, '/')+1:]
	if _, tag, ok := strings.Cut(name, ":"); ok {
		return tag
	}
	return "latest"
}

// teardown detaches the pod and removes its namespace. CNI DEL is tried again for a while: the node's agent may be away.
func (r *Running) teardown(ctx context.Context, ns string) {
	for range 20 {
		err := r.k.detach(ctx, r.pod, r.containerID())
		if err == nil {
			break
		}
		r.k.Log.Warn("pod is not detached", "pod", r.pod.Key.String(), "error", err)
		if !sleep(ctx, 250*time.Millisecond) {
			return
		}
	}
	if err := topology.DeleteNamespace(ns); err != nil {
		r.k.Log.Error("namespace is not deleted", "pod", r.pod.Key.String(), "error", err)
	}
}

func deref(p *int64, otherwise int64) int64 {
	if p == nil {
		return otherwise
	}
	return *p
}
