package cluster

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Step says what to do next so that the pods become what the workloads ask for, as the controllers of Kubernetes would:
// a rolling update starts at most maxSurge pods above the wanted number, and ends old pods only while enough others are
// ready. next is the Number of the first new pod. It is pure; call it again after each change.
func Step(workloads map[WorkloadKey]*Workload, pods []*Pod, nodes []Node, next int) Action {
	s := &step{pods: slices.Clone(pods), nodes: nodes, next: next}
	slices.SortFunc(s.pods, func(a, b *Pod) int { return cmp.Compare(a.Number, b.Number) })
	keys := slices.SortedFunc(maps.Keys(workloads), CompareWorkloads)
	for _, k := range keys {
		w := workloads[k]
		if w.daemon() {
			s.stepDaemon(w)
		} else {
			s.stepReplicas(w)
		}
	}
	for _, p := range s.pods {
		if workloads[p.Owner] == nil && !p.Terminating {
			s.End = append(s.End, p.Key)
		}
	}
	return s.Action
}

// CompareWorkloads orders by namespace, kind and name.
func CompareWorkloads(a, b WorkloadKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

type step struct {
	Action
	pods  []*Pod
	nodes []Node
	next  int
}

// of returns the pods of w: those of its present template, those of former ones, and the terminating ones.
func (s *step) of(w *Workload, hash string) (current, old, ending []*Pod) {
	for _, p := range s.pods {
		switch {
		case p.Owner != w.Key:
		case p.Terminating:
			ending = append(ending, p)
		case p.Hash == hash:
			current = append(current, p)
		default:
			old = append(old, p)
		}
	}
	return current, old, ending
}

func (s *step) stepReplicas(w *Workload) {
	hash := TemplateHash(w)
	current, old, ending := s.of(w, hash)
	if w.Recreate {
		s.end(old, len(old))
		if len(old)+len(ending) > 0 {
			return
		}
	}
	surge, unavailable := limits(w)
	for n := min(w.Replicas-len(current), w.Replicas+surge-len(current)-len(old)); n > 0; n-- {
		s.start(w, hash)
	}
	// Old ones that do not work go first; then as many as the ready ones allow.
	s.end(current, len(current)-w.Replicas)
	notReady := func(p *Pod) bool { return !p.Ready }
	broken := slices.DeleteFunc(slices.Clone(old), func(p *Pod) bool { return p.Ready })
	working := slices.DeleteFunc(slices.Clone(old), notReady)
	ready := len(working) + len(slices.DeleteFunc(slices.Clone(current), notReady))
	s.end(broken, len(broken))
	s.end(working, ready-(w.Replicas-unavailable))
}

// limits resolves percentages as Kubernetes does: a surge is rounded up, what may be unavailable down, and they are never
// both zero.
func limits(w *Workload) (surge, unavailable int) {
	surge, _ = intstr.GetScaledValueFromIntOrPercent(&w.MaxSurge, w.Replicas, true)
	unavailable, _ = intstr.GetScaledValueFromIntOrPercent(&w.MaxUnavailable, w.Replicas, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, w.Replicas)
}

// stepDaemon keeps one pod on each matching node. An update replaces one pod at a time.
func (s *step) stepDaemon(w *Workload) {
	hash := TemplateHash(w)
	current, old, ending := s.of(w, hash)
	occupied := map[string]bool{}
	settled := len(ending) == 0
	for _, p := range slices.Concat(current, old, ending) {
		occupied[p.Node] = true
		settled = settled && p.Ready
	}
	for _, n := range s.nodes {
		if !occupied[n.Name] && selects(w.Template.Spec.NodeSelector, n.Labels) {
			s.startOn(w, hash, n.Name)
			settled = false
		}
	}
	if settled {
		s.replace(w, hash, current, old)
	}
}

// replace goes on with the update of one node: the old pod ends first or, with a surge, when the new one is ready.
func (s *step) replace(w *Workload, hash string, current, old []*Pod) {
	if surge, _ := intstr.GetScaledValueFromIntOrPercent(&w.MaxSurge, 100, true); surge == 0 || len(old) == 0 {
		s.end(old, 1)
		return
	}
	updated := map[string]bool{}
	for _, p := range current {
		updated[p.Node] = true
	}
	for _, p := range old {
		if updated[p.Node] {
			s.End = append(s.End, p.Key)
			return
		}
	}
	s.startOn(w, hash, old[0].Node)
}

// end ends the newest n pods, those that are not ready before others.
func (s *step) end(pods []*Pod, n int) {
	pods = slices.Clone(pods)
	slices.SortStableFunc(pods, func(a, b *Pod) int {
		if a.Ready != b.Ready {
			if b.Ready {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.Number, a.Number)
	})
	for _, p := range pods[:max(0, min(n, len(pods)))] {
		s.End = append(s.End, p.Key)
	}
}

// start places a pod on the node that has the fewest pods of the workload's present template, then the fewest of all.
func (s *step) start(w *Workload, hash string) {
	var best *Node
	var bestScore [2]int
	for i, n := range s.nodes {
		if !selects(w.Template.Spec.NodeSelector, n.Labels) {
			continue
		}
		score := [2]int{}
		for _, p := range slices.Concat(s.pods, s.Start) {
			if p.Node != n.Name || p.Terminating {
				continue
			}
			score[1]++
			if p.Owner == w.Key && p.Hash == hash {
				score[0]++
			}
		}
		if best == nil || slices.Compare(score[:], bestScore[:]) < 0 {
			best, bestScore = &s.nodes[i], score
		}
	}
	if best != nil {
		s.startOn(w, hash, best.Name)
	}
}

func (s *step) startOn(w *Workload, hash, node string) {
	name := w.Key.Name
	switch w.Key.Kind {
	case "Pod":
	case "Deployment":
		name = fmt.Sprintf("%s-%s-%s", name, hash, suffix(s.next))
	default:
		name = fmt.Sprintf("%s-%s", name, suffix(s.next))
	}
	s.Start = append(s.Start, &Pod{
		Key: Key{Namespace: w.Key.Namespace, Name: name}, Owner: w.Key, Hash: hash, Number: s.next, Node: node,
		Labels: w.Template.Labels, Spec: w.Template.Spec,
	})
	s.next++
}

// suffix is a short word for the pod of this number.
func suffix(number int) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	h := hash("pod", fmt.Sprint(number))
	var b strings.Builder
	for range 5 {
		b.WriteByte(letters[h%uint32(len(letters))])
		h /= uint32(len(letters))
	}
	return b.String()
}

// TemplateHash names the template of w: pods with another one are old.
func TemplateHash(w *Workload) string {
	js, err := json.Marshal(w.Template)
	if err != nil {
		return "invalid"
	}
	return fmt.Sprintf("%08x", hash(string(js)))
}

// selects says whether labels has all of selector.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Runs says what the lab does with a workload's pods; reason is given when it does not run them.
func Runs(w *Workload) (ok bool, reason string) {
	if w.Template.Spec.HostNetwork {
		return false, "pods on the host network are not run"
	}
	for _, c := range w.Template.Spec.Containers {
		if isHythe(c.Image) {
			return false, "the lab runs Hythe's own processes on its nodes itself"
		}
	}
	return true, ""
}

func isHythe(image string) bool {
	return strings.HasPrefix(image, "hythe.dev/") && !strings.HasPrefix(image, "hythe.dev/echo")
}

// IsEnvoy says whether a container is the gateway's Envoy; all others are the echo server.
func IsEnvoy(c corev1.Container) bool {
	return strings.HasPrefix(strings.TrimPrefix(c.Image, "docker.io/"), "envoyproxy/envoy")
}
