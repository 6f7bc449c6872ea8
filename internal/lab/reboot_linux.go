package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"hythe.dev/hythe/internal/lab/kubelet"
	"hythe.dev/hythe/internal/lab/topology"
)

// bootID stands in for the kernel's boot id, which all nodes of the lab share.
func (l Lab) bootID(node string) string { return l.path("nodes", node, "boot_id") }

func (l Lab) newBoot(node string) error {
	if err := os.WriteFile(l.bootID(node), []byte(rand.Text()+"\n"), 0o644); err != nil {
		return fmt.Errorf("write boot id: %w", err)
	}
	return nil
}

// downLimit bounds the time until killed processes are gone.
const downLimit = 10 * time.Second

// reboot cuts the power of a node and starts it again: all its processes and pods end at once, its kernel and its run
// folder are empty, and its disk is as it was.
func (s *Supervisor) reboot(ctx context.Context, node string) error {
	if !slices.ContainsFunc(s.plan.Nodes, func(n topology.Node) bool { return n.Name == node }) {
		return fmt.Errorf("reboot %s: no such node", node)
	}
	processes, pods := s.on(node)
	for _, p := range processes {
		if err := p.Kill(syscall.SIGKILL, true); err != nil {
			return err
		}
	}
	for _, r := range pods {
		r.PowerOff()
	}
	err := errors.Join(waitGone(ctx, processes), s.wipe(node))
	for _, r := range pods {
		r.PowerOn()
	}
	for _, p := range processes {
		p.Release()
	}
	return err
}

// on returns what runs on a node.
func (s *Supervisor) on(node string) (processes []*kubelet.Process, pods []*kubelet.Running) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.processes {
		if strings.HasPrefix(name, node+"/") {
			processes = append(processes, p)
		}
	}
	for k, r := range s.running {
		if s.pods[k].Node == node {
			pods = append(pods, r)
		}
	}
	return processes, pods
}

func waitGone(ctx context.Context, processes []*kubelet.Process) error {
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	for _, p := range processes {
		for p.Status().PID != 0 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the end of %s: %w", p.Name, ctx.Err())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

// wipe empties what is in memory only.
func (s *Supervisor) wipe(node string) error {
	s.mu.Lock()
	var errs []error
	for k, p := range s.pods {
		if p.Node == node {
			errs = append(errs, topology.DeleteNamespace(topology.PodNamespaceName(s.Lab.Name, k.Namespace, k.Name)))
		}
	}
	s.mu.Unlock()
	dirs := s.Lab.node(node)
	for _, dir := range []string{dirs.Run, filepath.Dir(dirs.XDSSocket)} {
		errs = append(errs, os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
	}
	return errors.Join(append(errs, topology.Reboot(s.plan, node), s.Lab.newBoot(node))...)
}
