package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/run"
)

// process serves the admin pages of one, on a unix socket.
func process(t *testing.T, admin run.Admin) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: admin.Handler()}
	go server.Serve(listener) //nolint:errcheck // ends with the test
	t.Cleanup(func() { _ = server.Close() })
	return "unix:" + path
}

func written(t *testing.T, o Options) map[string]string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(t.Context(), &b, o); err != nil {
		t.Fatal(err)
	}
	compressed, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for archive := tar.NewReader(compressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		out[name] = string(data)
	}
}

const known = "known-secret-Zq7"

// What others wrote where it should not be does not leave the machine, from wherever it comes.
func TestWriteTakesSecretsOut(t *testing.T) {
	leak := "Authorization: Bearer " + known + "\n-----BEGIN PRIVATE KEY-----\n" + known + "\n-----END PRIVATE KEY-----\n"
	logs := t.TempDir()
	if err := os.WriteFile(filepath.Join(logs, "pod.log"), []byte("first line\n"+leak), 0o600); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a line of a log\n", maxFile/8) + leak
	if err := os.WriteFile(filepath.Join(logs, "long.log"), []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	address := process(t, run.Admin{
		Ready: func() error { return errors.New("waiting for token=" + known) },
		Debug: map[string]func(io.Writer){"status": func(w io.Writer) { fmt.Fprint(w, leak) }},
		Inspect: map[string]run.Inspector{
			"process": func(context.Context, url.Values) (any, error) {
				return inspect.Identity{Component: "node", Node: "node1"}, nil
			},
			"problems": func(context.Context, url.Values) (any, error) { return []string{"kept", leak}, nil },
			"headers": func(context.Context, url.Values) (any, error) {
				return map[string][]string{"cookie": {known}}, nil // in JSON for people, name and value stand on two lines
			},
			"broken": func(context.Context, url.Values) (any, error) { return nil, errors.New("password=" + known) },
		},
	})
	cluster, err := inspect.Open(t.Context(), []string{address})
	if err != nil {
		t.Fatal(err)
	}
	files := written(t, Options{
		Cluster: cluster, Questions: []string{"process", "problems", "headers", "broken", "unknown"}, Logs: logs,
		Extra: map[string][]byte{"extra.txt": []byte(leak)}, Now: time.Unix(0, 0),
	})
	var names []string
	for name, content := range files {
		names = append(names, name)
		if strings.Contains(content, known) {
			t.Errorf("%s holds the secret", name)
		}
	}
	slices.Sort(names)
	want := []string{
		"errors.txt", "extra.txt", "logs/long.log", "logs/pod.log", "processes/node1/node/debug/status.txt",
		"processes/node1/node/inspect/headers.json", "processes/node1/node/inspect/problems.json", "processes/node1/node/inspect/process.json", "processes/node1/node/ready.txt",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got files %q, want %q", names, want)
	}
	for name, text := range map[string]string{
		"logs/pod.log": "first line", "logs/long.log": "a line of a log", "processes/node1/node/inspect/problems.json": "kept",
		"errors.txt": "broken", "processes/node1/node/ready.txt": "waiting for",
	} {
		if !strings.Contains(files[name], text) {
			t.Errorf("%s lacks %q: %.200q", name, text, files[name])
		}
	}
	if len(files["logs/long.log"]) > maxFile+100 {
		t.Errorf("a long log has %d bytes in the bundle", len(files["logs/long.log"]))
	}
}

// A bundle of nothing is a bundle.
func TestWriteNothing(t *testing.T) {
	if files := written(t, Options{Now: time.Unix(0, 0)}); len(files) != 0 {
		t.Errorf("got %v", files)
	}
}
