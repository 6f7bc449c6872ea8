package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// kubectl runs kubectl with standard input and returns what it prints.
func (r *rig) kubectl(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	return r.command(ctx, stdin, r.Binary("kubectl"), append([]string{"--kubeconfig", r.Kubeconfig()}, args...)...)
}

func (r *rig) command(ctx context.Context, stdin, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// get reads objects into v.
func (r *rig) get(ctx context.Context, v any, args ...string) error {
	out, err := r.kubectl(ctx, "", append([]string{"get", "-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("read what kubectl says of %s: %w", args[0], err)
	}
	return nil
}

// wait asks until check is content. What check misses is said when it changes, and in the error.
func (r *rig) wait(ctx context.Context, what string, check func() (missing string, err error)) error {
	said := ""
	for {
		missing, err := check()
		if err != nil {
			missing = err.Error()
		}
		if missing == "" {
			r.say("%s", what)
			return nil
		}
		if missing != said && err == nil {
			r.say("  waiting: %s", missing)
			said = missing
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %q: %s: %w", what, missing, context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// A condition is one of an object's status.
type condition struct{ Type, Status, Reason, Message string }

func isTrue(conditions []condition, kind string) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == "True"
		}
	}
	return false
}

type nodeList struct {
	Items []struct {
		Metadata struct{ Name string }
		Spec     struct{ PodCIDRs []netip.Prefix }
		Status   struct {
			Conditions []condition
			NodeInfo   struct{ BootID string }
			Addresses  []struct{ Type, Address string }
		}
	}
}

// A workload is a DaemonSet or a Deployment, with the counts of both.
type workload struct {
	Kind     string
	Metadata struct {
		Namespace, Name string
		Generation      int64
	}
	Spec   struct{ Replicas *int }
	Status struct {
		ObservedGeneration                                          int64
		Replicas, UpdatedReplicas, ReadyReplicas                    int
		DesiredNumberScheduled, UpdatedNumberScheduled, NumberReady int
	}
}

// missing says what the workload lacks to be complete, or nothing.
func (w workload) missing() string {
	want, updated, ready := w.Status.DesiredNumberScheduled, w.Status.UpdatedNumberScheduled, w.Status.NumberReady
	if w.Kind == "Deployment" {
		want, updated, ready = 1, w.Status.UpdatedReplicas, w.Status.ReadyReplicas
		if w.Spec.Replicas != nil {
			want = *w.Spec.Replicas
		}
		// Those of before count as ready until they are gone.
		if w.Status.Replicas > updated {
			ready = 0
		}
	}
	if w.Status.ObservedGeneration < w.Metadata.Generation {
		ready = 0
	}
	if n := min(updated, ready); n < want {
		return fmt.Sprintf("%s %d/%d", w.Metadata.Name, n, want)
	}
	return ""
}

var errNone = errors.New("there is none")

// incomplete says which workloads of a namespace are not complete.
func (r *rig) incomplete(ctx context.Context, namespace string) (string, error) {
	var list struct{ Items []workload }
	if err := r.get(ctx, &list, "daemonsets,deployments", "--namespace", namespace); err != nil {
		return "", err
	}
	if len(list.Items) == 0 {
		return "", fmt.Errorf("workloads in %s: %w", namespace, errNone)
	}
	var out []string
	for _, w := range list.Items {
		if m := w.missing(); m != "" {
			out = append(out, m)
		}
	}
	return strings.Join(out, ", "), nil
}
