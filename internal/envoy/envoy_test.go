package envoy

import (
	"os/exec"
	"path/filepath"
	"testing"

	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/testenv"
)

func options(dir string) BootstrapOptions {
	return BootstrapOptions{
		Node: "n1", XDSSocket: filepath.Join(dir, "xds.sock"), AdminSocket: filepath.Join(dir, "admin.sock"),
		MaxHeapBytes: 1 << 30,
	}
}

func TestBootstrapGolden(t *testing.T) {
	got, err := Bootstrap(options("/run/hythe"))
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/bootstrap.yaml", string(got))
}

func TestBootstrapNeedsNodeAndSocket(t *testing.T) {
	if _, err := Bootstrap(BootstrapOptions{XDSSocket: "/x"}); err == nil {
		t.Error("no error without a node")
	}
	if _, err := Bootstrap(BootstrapOptions{Node: "n1"}); err == nil {
		t.Error("no error without a socket")
	}
}

func TestEnvoyAcceptsBootstrap(t *testing.T) {
	path := testenv.Envoy(t)
	dir := t.TempDir()
	o := Options{Path: path, BootstrapFile: filepath.Join(dir, "bootstrap.yaml"), Bootstrap: options(dir)}
	if err := WriteBootstrap(o); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, append([]string{"--mode", "validate"}, Args(o)...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("envoy --mode validate: %v\n%s", err, out)
	}
}
