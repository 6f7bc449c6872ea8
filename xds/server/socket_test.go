package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/xds"
)

// TestMain lets the test binary play a client of another user.
func TestMain(m *testing.M) {
	if path := os.Getenv("HYTHE_TEST_DIAL"); path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			os.Exit(3)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		var b [1]byte
		if _, err := c.Read(b[:]); errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			os.Exit(4)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestSocketPeers wants only allowed users to be served, whatever the modes of the socket and its folder are.
func TestSocketPeers(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		allow []uint32
		exit  int
	}{{nil, 4}, {[]uint32{65534}, 0}} {
		dir, err := os.MkdirTemp("", "hythe")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		path := filepath.Join(dir, "run", "s.sock")
		l, err := listen(path, c.allow, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for p, mode := range map[string]os.FileMode{filepath.Dir(path): 0o750, path: 0o660} {
			info, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != mode {
				t.Errorf("mode of %s: %v, want %v", p, info.Mode().Perm(), mode)
			}
		}
		for p, mode := range map[string]os.FileMode{dir: 0o755, filepath.Dir(path): 0o755, path: 0o666} {
			if err := os.Chmod(p, mode); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte("x"))
			}
		}()
		binary := filepath.Join(dir, "client")
		if err := os.Link(os.Args[0], binary); err != nil {
			data, err := os.ReadFile(os.Args[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(binary, data, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(binary)
		cmd.Dir = "/"
		cmd.Env = []string{"HYTHE_TEST_DIAL=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		err = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != c.exit {
			t.Errorf("a client of user 65534, allowed %v, ended with %d (%v), want %d", c.allow, got, err, c.exit)
		}
		_ = l.Close()
	}
}

// connected returns a Server that runs until the test ends, and a client of it.
func connected(t *testing.T) (*Server, discoveryv3.AggregatedDiscoveryServiceClient) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hythe") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s.sock")
	s, err := New(Options{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Run(t.Context()) }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return s, discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

// TestOtherMethods wants the state-of-the-world stream to be refused, so that no second path leads to the keys.
func TestOtherMethods(t *testing.T) {
	_, client := connected(t)
	stream, err := client.StreamAggregatedResources(t.Context(), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented {
		t.Errorf("state of the world: %v, want Unimplemented", err)
	}
}

// TestSlowEnvoy wants Set to return at once although an Envoy reads nothing.
func TestSlowEnvoy(t *testing.T) {
	s, client := connected(t)
	stream, err := client.DeltaAggregatedResources(t.Context(), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.Cluster.TypeURL()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected", func() error {
		if s.Status().Streams == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	start := time.Now()
	for range 1000 {
		s.Set(xds.Resources{})
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("1000 Sets took %v", took)
	}
	if s.Status().Ready {
		t.Error("ready although Envoy acknowledged nothing")
	}
}
