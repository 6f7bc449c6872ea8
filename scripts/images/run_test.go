package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"archive/tar"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// needRunc skips without root or runc, or fails under LAB=strict.
func needRunc(t *testing.T) {
	t.Helper()
	needEnvoy(t)
	_, err := exec.LookPath("runc")
	if os.Geteuid() == 0 && err == nil {
		return
	}
	if os.Getenv("LAB") == "strict" {
		t.Fatal("needs root and runc")
	}
	t.Skip("needs root and runc")
}

// TestEnvoyRuns starts Envoy from the image's files alone, as the chart does: not root, no capability, nothing to write
// to but the folder of its socket, no /tmp, no /dev/shm, no network.
func TestEnvoyRuns(t *testing.T) {
	needRunc(t)
	c := unpacked(t, envoyImage)
	c.writable(t, "/run/hythe/gateway")
	const socket = "/run/hythe/gateway/envoy-admin.sock"

	config := c.run(t, "/hythe", "gateway", "bootstrap", "--node", "node1",
		"--xds-socket", "/run/hythe/gateway/xds.sock", "--admin-socket", socket)
	if err := os.WriteFile(filepath.Join(c.mounts["/run/hythe/gateway"], "envoy.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	envoy := c.start(t, "/usr/local/bin/envoy", "--config-path", "/run/hythe/gateway/envoy.yaml", "--disable-hot-restart")
	info := askAdmin(t, filepath.Join(c.mounts["/run/hythe/gateway"], filepath.Base(socket)), "/server_info")
	if !strings.Contains(info, `"version"`) || !strings.Contains(info, `"disable_hot_restart": true`) {
		t.Errorf("Envoy says %s", info)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", envoy.pid(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000",
		"NoNewPrivs:\t1", "Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532"} {
		if !strings.Contains(string(status), line) {
			t.Errorf("the status of Envoy's process lacks %q", line)
		}
	}
	c.exec(t, envoy, "/hythe", "gateway", "drain", "--admin-socket", socket, "--least", "1ms", "--idle", "1ms", "--deadline", "20s")
	envoy.stop(t)
}

// TestHytheRuns asks the other image for its version; the plugin says which versions of CNI it speaks.
func TestHytheRuns(t *testing.T) {
	needRunc(t)
	c := unpacked(t, hytheImage)
	if out := c.run(t, "/hythe", "--version"); !strings.Contains(out, "v0.0.0-test") {
		t.Errorf("hythe says %q", out)
	}
	c.env = append(c.env, "CNI_COMMAND=VERSION")
	if out := c.run(t, "/hythe-cni"); !strings.Contains(out, "supportedVersions") {
		t.Errorf("hythe-cni says %q", out)
	}
}

// TestOtherArchitecture runs the programs of arm64 where qemu-aarch64-static is installed.
func TestOtherArchitecture(t *testing.T) {
	needEnvoy(t)
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Skip("qemu-aarch64-static is not installed")
	}
	for _, c := range []struct {
		spec func(input) spec
		path string
		want string
	}{
		{hytheImage, "hythe", "v0.0.0-test"},
		{envoyImage, "hythe", "v0.0.0-test"},
		{envoyImage, "usr/local/bin/envoy", "envoy  version:"},
	} {
		root := unpack(t, c.spec, "arm64")
		out, err := exec.Command(qemu, "-L", root, filepath.Join(root, c.path), "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v\n%s", c.path, err, out)
		}
	}
}

// A container is an unpacked image, and how to run a process in it.
type container struct {
	root   string
	mounts map[string]string
	env    []string
}

func unpacked(t *testing.T, make func(input) spec) *container {
	t.Helper()
	return &container{root: unpack(t, make, runtime.GOARCH), mounts: map[string]string{}, env: []string{"PATH=/"}}
}

// unpack builds an image and returns a folder with its files.
func unpack(t *testing.T, make func(input) spec, arch string) string {
	t.Helper()
	o := testOptions(t, repository(t))
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	o.Cache = filepath.Join(cache, "hythe", "images")
	if err := os.MkdirAll(filepath.Join(o.Cache, "layers"), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := gather(o, arch, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	image, err := newImage(o, make(in), arch)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	content := mutate.Extract(image)
	defer content.Close()
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := extract(filepath.Join(root, h.Name), h, r); err != nil {
			t.Fatal(err)
		}
	}
}

func extract(name string, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return os.MkdirAll(name, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return os.WriteFile(name, raw, os.FileMode(h.Mode))
}

// writable mounts a folder of the image's user.
func (c *container) writable(t *testing.T, path string) {
	t.Helper()
	// Unix sockets have short paths.
	dir, err := os.MkdirTemp("", "img")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	// runc makes the mount point before the root file system becomes read-only.
	c.mounts[path] = dir
}

// bundle writes the configuration of a container (OCI runtime specification).
func (c *container) bundle(t *testing.T, args []string) string {
	t.Helper()
	type object = map[string]any
	none := object{"bounding": []string{}, "effective": []string{}, "permitted": []string{}, "inheritable": []string{}, "ambient": []string{}}
	mounts := []object{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=64k"}},
	}
	for path, dir := range c.mounts {
		mounts = append(mounts, object{"destination": path, "type": "bind", "source": dir, "options": []string{"bind", "rw", "nosuid", "nodev", "noexec"}})
	}
	var namespaces []object
	for _, name := range []string{"pid", "ipc", "uts", "mount", "network"} {
		namespaces = append(namespaces, object{"type": name})
	}
	config := object{
		"ociVersion": "1.0.2",
		"process": object{
			"user": object{"uid": 65532, "gid": 65532}, "args": args, "env": c.env, "cwd": "/",
			"capabilities": none, "noNewPrivileges": true,
		},
		"root":   object{"path": c.root, "readonly": true},
		"mounts": mounts,
		"linux":  object{"namespaces": namespaces},
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A process is what runs in a container.
type process struct {
	id, state string
	cmd       *exec.Cmd
	output    *bytes.Buffer
}

// start starts a process; it is stopped at the end of the test.
func (c *container) start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{id: fmt.Sprintf("img-%d-%d", os.Getpid(), time.Now().UnixNano()), state: t.TempDir(), output: &bytes.Buffer{}}
	p.cmd = exec.Command("runc", "--root", p.state, "run", "--bundle", c.bundle(t, args), p.id)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("runc", "--root", p.state, "delete", "--force", p.id).Run()
		if t.Failed() {
			t.Logf("%s:\n%s", args[0], p.output)
		}
	})
	return p
}

// run runs a process to its end and returns what it printed.
func (c *container) run(t *testing.T, args ...string) string {
	t.Helper()
	p := c.start(t, args...)
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("run %s: %v\n%s", strings.Join(args, " "), err, p.output)
	}
	return p.output.String()
}

// exec runs a second process beside p, as a preStop hook does.
func (c *container) exec(t *testing.T, p *process, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "runc", append([]string{"--root", p.state, "exec", p.id}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("run %s in the container: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (p *process) pid(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("runc", "--root", p.state, "state", p.id).Output()
	if err != nil {
		t.Fatal(err)
	}
	var state struct{ Pid int }
	if err := json.Unmarshal(out, &state); err != nil {
		t.Fatal(err)
	}
	return state.Pid
}

// stop asks the process to end; it must do so without an error.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("runc", "--root", p.state, "kill", p.id, "TERM").CombinedOutput(); err != nil {
		t.Fatalf("stop: %v %s", err, out)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v", err)
	}
}

// askAdmin asks Envoy's admin pages until they answer.
func askAdmin(t *testing.T, socket, path string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	deadline := time.Now().Add(30 * time.Second)
	for {
		response, err := client.Get("http://envoy" + path)
		if err == nil {
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			return string(body)
		}
		if time.Now().After(deadline) {
			t.Fatalf("ask Envoy: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
