package lab

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"hythe.dev/hythe/internal/lab/topology"
)

// Shell replaces the calling process by a command, or a shell, in a machine of the lab: "client", "router", "lan",
// "control", a node, or a pod by its name or the first one of "namespace/deployment". It returns only with an error.
func (l Lab) Shell(where string, command []string) error {
	ns, err := l.find(where)
	if err != nil {
		return err
	}
	if len(command) == 0 {
		command = []string{"bash", "--norc", "-i"}
		if _, err := exec.LookPath("bash"); err != nil {
			command = []string{"sh", "-i"}
		}
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("run in %s: %w", where, err)
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PS1=") })
	env = append(env, "PS1="+where+" \\w# ")
	if err := topology.Enter(ns); err != nil {
		return fmt.Errorf("enter %s: %w", where, err)
	}
	return fmt.Errorf("run in %s: %w", where, syscall.Exec(path, command, env))
}

// find returns the network namespace of a machine or pod.
func (l Lab) find(where string) (string, error) {
	names, err := topology.Namespaces(l.Name)
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		return "", ErrDown
	}
	role := where
	if where == "client" {
		role = topology.Client
	}
	if ns := l.Namespace(role); slices.Contains(names, ns) {
		return ns, nil
	}
	want := strings.ReplaceAll(where, "/", "-")
	var first string
	known := []string{"client"}
	for _, ns := range names {
		short := strings.TrimPrefix(strings.TrimSuffix(ns, "."+l.Name), "hythe-")
		pod, isPod := strings.CutPrefix(short, "pod-")
		known = append(known, pod)
		if isPod && (pod == want || strings.HasSuffix(pod, "-"+want)) {
			return ns, nil
		}
		if isPod && first == "" && strings.HasPrefix(pod, want+"-") {
			first = ns
		}
	}
	if first == "" {
		return "", fmt.Errorf("no machine or pod %q, there are: %s", where, strings.Join(known, ", "))
	}
	return first, nil
}
