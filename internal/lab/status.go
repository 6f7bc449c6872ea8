package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/lab/cluster"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/model"
)

// readyTimeout bounds one question to a process.
const readyTimeout = 500 * time.Millisecond

// Status asks all processes and tells how the lab is.
func (s *Supervisor) Status(ctx context.Context) Status {
	out := Status{PID: os.Getpid(), Manifests: s.Manifests, CA: s.Lab.CA()}
	out.Processes = s.processStatus(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Added, out.Skipped = s.additions.Added, s.additions.Skipped
	if err := errors.Join(s.filesErr, s.source.err()); err != nil {
		out.Problems = append(out.Problems, strings.Split(err.Error(), "\n")...)
	}
	out.Pods = s.podStatus()
	gateways := s.addVIPs(&out)
	out.Waiting = s.waiting(out, gateways)
	return out
}

func (s *Supervisor) processStatus(ctx context.Context) []ProcessStatus {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.processes))
	out := make([]ProcessStatus, len(names))
	checks := maps.Clone(s.checks)
	for i, name := range names {
		out[i].ProcessStatus = s.processes[name].Status()
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() {
			check := checks[names[i]]
			if check == nil {
				check = func(ctx context.Context) error { return askReady(ctx, s.Lab.Admin(names[i])) }
			}
			ctx, cancel := context.WithTimeout(ctx, readyTimeout)
			defer cancel()
			if err := check(ctx); err != nil {
				out[i].Why = err.Error()
			}
			out[i].Ready = out[i].Why == ""
		})
	}
	wg.Wait()
	return out
}

func askReady(ctx context.Context, socket string) error {
	client := unixClient(socket)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lab/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no answer")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s", strings.TrimSpace(string(body)))
	}
	return nil
}

func (s *Supervisor) podStatus() []PodStatus {
	var out []PodStatus
	for _, k := range model.SortedKeys(s.pods) {
		p := s.pods[k]
		st := PodStatus{
			Namespace: k.Namespace, Name: k.Name, Owner: p.Owner.Name, Node: p.Node, Ready: p.Ready, Terminating: p.Terminating,
			Message: s.messages[k], Netns: topology.PodNamespaceName(s.Lab.Name, k.Namespace, k.Name),
		}
		if p.Address.IsValid() {
			st.Address = p.Address.String()
		}
		for _, c := range p.Spec.Containers {
			st.Images = append(st.Images, c.Image)
		}
		for i, c := range s.running[k].Containers() {
			ps := c.Status()
			st.Containers = append(st.Containers, ContainerInfo{Name: p.Spec.Containers[i].Name, PID: ps.PID, Since: ps.Since, Restarts: ps.Restarts})
		}
		out = append(out, st)
	}
	return out
}

// addVIPs reads claims and reports from the state folder. It returns the names of the Services that Envoy stands behind.
func (s *Supervisor) addVIPs(out *Status) map[string]bool {
	gateways := map[string]bool{}
	for k, svc := range s.services {
		if class := svc.Spec.LoadBalancerClass; class == nil || *class != v1alpha1.LoadBalancerClass {
			continue
		}
		for _, p := range s.pods {
			if p.Key.Namespace == k.Namespace && slices.ContainsFunc(p.Spec.Containers, cluster.IsEnvoy) && selectsPod(svc, p) {
				gateways[k.String()] = true
			}
		}
	}
	snapshot, err := s.source.snapshot()
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
		return gateways
	}
	for _, p := range snapshot.Problems {
		out.Problems = append(out.Problems, p.String())
	}
	ready := map[string]bool{}
	for _, p := range out.Processes {
		node, component, _ := strings.Cut(p.Name, "/")
		ready[component+"/"+node] = p.Ready
	}
	owners := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(snapshot.Reports)) {
		r := snapshot.Reports[name]
		for _, a := range r.Addresses {
			// A process that was killed leaves its last report.
			if ready[r.Component+"/"+r.Node] {
				owners[a] = append(owners[a], r.Node)
			}
		}
		for _, p := range r.Problems {
			ref := model.ObjectRef{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}
			line := fmt.Sprintf("%s: %s: %s", ref, p.Reason, p.Message)
			if !slices.Contains(out.Problems, line) {
				out.Problems = append(out.Problems, line)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(snapshot.Claims)) {
		c := snapshot.Claims[name]
		v := VIPStatus{Address: c.Spec.Address, Pool: c.Spec.Pool, Owners: owners[c.Spec.Address]}
		for _, ref := range c.Spec.Services {
			v.Services = append(v.Services, ref.Namespace+"/"+ref.Name)
		}
		out.VIPs = append(out.VIPs, v)
	}
	return gateways
}

func selectsPod(s *corev1.Service, p *cluster.Pod) bool {
	for k, v := range s.Spec.Selector {
		if p.Labels[k] != v {
			return false
		}
	}
	return len(s.Spec.Selector) > 0
}

// waiting lists what is not as it should be, in the order in which it should happen.
func (s *Supervisor) waiting(st Status, gateways map[string]bool) []string {
	var out []string
	for _, p := range st.Processes {
		if !p.Ready {
			out = append(out, fmt.Sprintf("process %s: %s", p.Name, p.Why))
		}
	}
	action := cluster.Step(s.workloads, slices.Collect(maps.Values(s.pods)), s.nodes, s.next)
	if n := len(action.Start); n > 0 {
		out = append(out, fmt.Sprintf("%d pods to start", n))
	}
	for _, p := range st.Pods {
		switch {
		case p.Terminating:
			out = append(out, fmt.Sprintf("pod %s/%s terminates", p.Namespace, p.Name))
		case !p.Ready:
			out = append(out, fmt.Sprintf("pod %s/%s on %s: %s", p.Namespace, p.Name, p.Node, p.Message))
		}
	}
	owned := map[string]bool{}
	for _, v := range st.VIPs {
		for _, name := range v.Services {
			owned[name] = len(v.Owners) == 1
		}
	}
	for _, name := range slices.Sorted(maps.Keys(gateways)) {
		if !owned[name] {
			out = append(out, fmt.Sprintf("Service %s has no VIP with one owner", name))
		}
	}
	if len(gateways) == 0 {
		out = append(out, "no Service of class "+v1alpha1.LoadBalancerClass+" has an Envoy pod behind it")
	}
	return out
}
