package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/run"
)

// found returns a finder for a command line and an environment.
func found(t *testing.T, env map[string]string, args ...string) *finder {
	t.Helper()
	cmd := &cobra.Command{}
	f := addFindFlags(cmd)
	f.getenv = func(name string) string { return env[name] }
	f.kubectl = func() bool { return false }
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFinderAddresses(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"control/controller.sock", "node1/node.sock", "node1/other.txt"} {
		path := filepath.Join(dir, "run", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sockets := []string{"unix:" + dir + "/run/control/controller.sock", "unix:" + dir + "/run/node1/node.sock"}
	for name, c := range map[string]struct {
		env     map[string]string
		args    []string
		want    []string
		guessed bool
	}{
		"nothing":                 {nil, nil, localAdmins(), true},
		"admin":                   {map[string]string{"HYTHE_ADMIN": "x:1"}, []string{"--admin", "a:1", "--admin", "unix:/b"}, []string{"a:1", "unix:/b"}, false},
		"environment":             {map[string]string{"HYTHE_ADMIN": " a:1, ,b:2"}, nil, []string{"a:1", "b:2"}, false},
		"lab's folder":            {nil, []string{"--lab-dir", dir}, sockets, false},
		"lab's folder and admin":  {nil, []string{"--lab-dir", dir, "--admin", "a:1"}, append([]string{"a:1"}, sockets...), false},
		"lab before environment ": {map[string]string{"HYTHE_ADMIN": "x:1"}, []string{"--lab-dir", dir}, sockets, false},
	} {
		if name == "nothing" && labRuns() {
			continue // the usual lab of this machine is found
		}
		got, guessed, err := found(t, c.env, c.args...).addresses()
		if err != nil || guessed != c.guessed || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, guessed %t, %v; want %q", name, got, guessed, err, c.want)
		}
	}
	for name, args := range map[string][]string{
		"a lab that is not there": {"--lab-dir", filepath.Join(dir, "none")}, "a bad name": {"--lab", "no/name"},
	} {
		if _, _, err := found(t, nil, args...).addresses(); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
	if _, _, err := found(t, map[string]string{"HYTHE_LAB": "no/name"}).addresses(); err == nil {
		t.Error("HYTHE_LAB is not used")
	}
}

// A cluster is asked if it is named, or if kubectl would find one and nothing else is named.
func TestFinderAsksCluster(t *testing.T) {
	for name, c := range map[string]struct {
		env     map[string]string
		args    []string
		kubectl bool
		want    bool
	}{
		"nothing":                     {nil, nil, false, false},
		"a kubeconfig of kubectl":     {nil, nil, true, !labRuns()},
		"a kubeconfig, and addresses": {nil, []string{"--admin", "a:1"}, true, false},
		"a kubeconfig, and a lab":     {nil, []string{"--lab", "x"}, true, false},
		"a kubeconfig, and HYTHE_LAB": {map[string]string{"HYTHE_LAB": "x"}, nil, true, false},
		"--kubeconfig":                {map[string]string{"HYTHE_ADMIN": "a:1"}, []string{"--kubeconfig", "/x"}, false, true},
		"--context":                   {nil, []string{"--context", "x"}, false, true},
	} {
		f := found(t, c.env, c.args...)
		f.kubectl = func() bool { return c.kubectl }
		if got := f.asksCluster(); got != c.want {
			t.Errorf("%s: asks a cluster %t, want %t", name, got, c.want)
		}
	}
}

func labRuns() bool {
	addresses, err := (&finder{}).labAddresses("", "")
	return err == nil && slices.ContainsFunc(addresses, listens)
}

// One silent process is named, and hides nothing of the others. On this machine's own addresses nobody needs to be.
func TestFinderNamesTheSilent(t *testing.T) {
	dir := t.TempDir()
	admin := run.Admin{Inspect: (&process{started: time.Now(), handed: &handed{}}).inspectors("node", "node1", nil)}
	ctx := t.Context()
	go admin.Serve(ctx, "unix:"+filepath.Join(dir, "a.sock")) //nolint:errcheck // ends with the test
	eventually(t, func() string {
		if !listens("unix:" + filepath.Join(dir, "a.sock")) {
			return "the process does not listen"
		}
		return ""
	})
	f := found(t, nil, "--admin", "unix:"+filepath.Join(dir, "a.sock"), "--admin", "unix:"+filepath.Join(dir, "b.sock"))
	cluster, err := f.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	warnSilent(&b, cluster)
	if len(cluster.Processes) != 1 || !strings.Contains(b.String(), "Warning: nobody answers at unix:"+dir+"/b.sock") {
		t.Errorf("got %d processes, %s", len(cluster.Processes), &b)
	}
	if labRuns() {
		t.Skip("the usual lab runs here, so that nothing is guessed")
	}
	guess := found(t, nil)
	guess.local = []string{"unix:" + filepath.Join(dir, "a.sock"), "127.0.0.1:1"} // port 1: nobody listens
	if cluster, err = guess.open(ctx); err != nil || len(cluster.Silent) != 0 {
		t.Errorf("guessed addresses: %v, silent %v", err, cluster)
	}
	guess.local = []string{"127.0.0.1:1"}
	if _, err := guess.open(ctx); err == nil || !strings.Contains(err.Error(), "--lab NAME") {
		t.Errorf("nobody at all: %v, want a hint", err)
	}
}

// A process that answers one question and fails at another is named too.
func TestAskGoesOn(t *testing.T) {
	dir := t.TempDir()
	var addresses []string
	for name, handler := range map[string]http.HandlerFunc{
		"good": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`[{"reason":"spoofed","packets":1}]`))
		},
		"bad": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "netlink is stuck", http.StatusInternalServerError)
		},
	} {
		address := "unix:" + filepath.Join(dir, name+".sock")
		addresses = append(addresses, address)
		listenTest(t, address, name, handler)
	}
	cluster, err := inspect.Open(t.Context(), addresses)
	if err != nil {
		t.Fatal(err)
	}
	q := question{cluster: cluster}
	list, errs := q.items(t.Context(), "drops")
	if len(list) != 1 || len(errs) != 1 || q.answered != 1 || !strings.Contains(errs[0].Error(), "bad/node does not tell its drops: 500 Internal Server Error: netlink is stuck") {
		t.Errorf("got %d items, %v, %d answered", len(list), errs, q.answered)
	}
}

func TestGetArguments(t *testing.T) {
	for _, args := range [][]string{{}, {"pods"}, {"hosts", "a", "b"}, {"hosts", "-o", "xml"}, {"hosts", "-w", "-o", "json"}} {
		cmd := newGetCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(append(args, "--admin", "127.0.0.1:1"))
		if err := cmd.Execute(); err == nil || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%q: got %v, want an error before anybody is asked", args, err)
		}
	}
	kinds, _ := completeKind(nil, nil, "")
	if len(kinds) != 8 || !strings.HasPrefix(kinds[0], "vips\t") {
		t.Errorf("completion offers %q", kinds)
	}
}

// listenTest serves a process of the component node at a unix socket.
func listenTest(t *testing.T, address, node string, drops http.HandlerFunc) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /inspect/process", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"component":"node","node":"` + node + `"}`))
	})
	mux.HandleFunc("GET /inspect/drops", drops)
	listener, err := net.Listen("unix", strings.TrimPrefix(address, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	go server.Serve(listener) //nolint:errcheck // ends with the test
	t.Cleanup(func() { _ = server.Close() })
}

// A lab's namespaces have its name in theirs, and --lab-dir alone does not say it.
func TestFinderNamedLab(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"", []string{"--lab-dir", dir}, "hythe-inet"},
		{"judge", []string{"--lab-dir", dir}, "hythe-inet.judge"},
		{"judge", []string{"--lab-dir", dir, "--lab", "other"}, "hythe-inet.other"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "name"), []byte(c.name), 0o644); err != nil {
			t.Fatal(err)
		}
		l, ok := found(t, nil, c.args...).chosenLab()
		if got := l.Namespace("inet"); !ok || got != c.want {
			t.Errorf("lab %q by %v: namespace %s (%t), want %s", c.name, c.args, got, ok, c.want)
		}
	}
}
