package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// A tester starts e2e.test.
type tester struct {
	run
	// program is e2e.test, and start runs it where the client outside of the cluster is.
	program string
	start   func(*exec.Cmd) error
	// kubeconfig is the administrator's, and kubectl the program of the same version.
	kubeconfig, kubectl string
	// registries is the text of a file that says where e2e.test takes its images from.
	registries string
	// logs is the folder for what tests print.
	logs string
	// limit is the longest time for one test.
	limit time.Duration
}

// list returns what e2e.test says of its tests.
func (t *tester) list(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, t.program, "--list-tests").Output()
	if err != nil {
		return "", fmt.Errorf("list tests: %w", err)
	}
	return string(out), nil
}

// log is the file for what a test prints.
func (t *tester) log(name string) string {
	h := fnv.New64a()
	h.Write([]byte(name))
	return filepath.Join(t.logs, fmt.Sprintf("%016x.log", h.Sum64()))
}

// test runs one test. An error says that there is no result, and that there would be none for other tests either.
func (t *tester) test(ctx context.Context, name string) (result, error) {
	r := result{Flavour: t.Flavour, Commit: t.Commit, Kubernetes: t.Kubernetes, Test: name}
	if err := os.MkdirAll(t.logs, 0o755); err != nil {
		return r, err
	}
	if err := os.WriteFile(t.registriesFile(), []byte(t.registries), 0o644); err != nil {
		return r, err
	}
	log, err := os.Create(t.log(name))
	if err != nil {
		return r, err
	}
	defer log.Close()
	fmt.Fprintf(log, "%s\n\n", name)
	report := log.Name() + ".json"
	defer os.Remove(report)

	ctx, cancel := context.WithTimeout(ctx, t.limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.program, t.args(name, report)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "KUBE_TEST_REPO_LIST="+t.registriesFile())
	// e2e.test cleans up when it is asked to end.
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = time.Minute
	begun := time.Now()
	ended := t.start(cmd)
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return r, err
	}
	r.Seconds = int(time.Since(begun).Round(time.Second).Seconds())
	f, err := os.Open(report)
	if err != nil {
		return r, fmt.Errorf("e2e.test wrote no report (log: %s): %w", log.Name(), errors.Join(ended, err))
	}
	defer f.Close()
	if r.Result, r.Message, err = parseReport(f, name); err != nil {
		return r, fmt.Errorf("%w (log: %s)", err, log.Name())
	}
	return r, nil
}

func (t *tester) registriesFile() string { return filepath.Join(t.logs, "registries.yaml") }

func (t *tester) args(name, report string) []string {
	return []string{
		"--kubeconfig", t.kubeconfig, "--kubectl-path", t.kubectl, "--provider", "skeleton",
		"--ginkgo.focus", regexp.QuoteMeta(name) + "$", "--ginkgo.no-color", "--ginkgo.v", "--ginkgo.timeout", t.limit.String(),
		"--ginkgo.json-report", report,
	}
}
