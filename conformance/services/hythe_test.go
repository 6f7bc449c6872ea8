package services

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"hythe.dev/hythe/internal/atomicfile"
)

// A program is a Service proxy on node1.
type program interface {
	// apply makes the objects of all files the ones that are there.
	apply(step int, objects string)
}

// An output collects what a process says.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// tail is the last lines.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(o.b.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// start runs a process on a host until the test ends.
func (l *lab) start(h *host, command ...string) {
	l.Helper()
	out := &output{}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the process ends with the thread that started it
		err := netns.Set(h.ns)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		l.Fatalf("start %s on %s: %v", filepath.Base(command[0]), h.name, err)
	}
	l.Cleanup(func() {
		select {
		case <-done:
			l.Errorf("%s on %s ended", filepath.Base(command[0]), h.name)
		default:
		}
		_ = cmd.Process.Kill()
		<-done
		if l.Failed() {
			l.Logf("the last lines of %s on %s:\n%s", filepath.Base(command[0]), h.name, out.tail())
		}
	})
}

// buildHythe makes the binary once for all tests.
var buildHythe = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hythe-services-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "hythe")
	command := exec.Command("go", "build", "-o", path, "hythe.dev/hythe/cmd/hythe")
	if out, err := command.CombinedOutput(); err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return path, nil
})

// TestMain removes the binary.
func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := buildHythe(); err == nil && builtHythe {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

var builtHythe bool

// agents run "hythe node" on both nodes, from files. Their overlay joins the nodes whatever the proxy on node1 is.
type agents struct {
	*lab
	dir string
	// proxies says that the agent of node1 is the proxy.
	proxies bool
}

func (l *lab) startAgents(proxies bool) *agents {
	l.Helper()
	hythe, err := buildHythe()
	l.must(err)
	builtHythe = true
	a := &agents{lab: l, dir: l.TempDir(), proxies: proxies}
	a.write("manifests", baseObjects()+serviceCIDR)
	a.write("state", "")
	for _, name := range []string{"node1", "node2"} {
		args := []string{hythe, "node", "--node", name, "--manifests", filepath.Join(a.dir, "manifests"), "--state", filepath.Join(a.dir, "state"),
			"--data", filepath.Join(a.dir, name, "data"), "--run", filepath.Join(a.dir, name, "run"), "--cni-conf-dir", "",
			"--balancer-class", otherClass, "--external-ips"}
		if !proxies || name == "node2" {
			args = append(args, "--without-proxy")
		}
		l.start(l.hosts[name], args...)
	}
	return a
}

// write replaces the one file of a folder.
func (a *agents) write(folder, text string) {
	a.Helper()
	a.must(os.MkdirAll(filepath.Join(a.dir, folder), 0o755))
	a.must(atomicfile.Write(filepath.Join(a.dir, folder, "all.yaml"), []byte(text), 0o644))
}

func (a *agents) apply(_ int, objects string) {
	a.Helper()
	if a.proxies {
		a.write("state", claims(a.T, objects))
		a.write("manifests", baseObjects()+serviceCIDR+objects)
	}
}

// overlayWorks waits until pods reach those of the other node.
func (l *lab) overlayWorks() {
	l.Helper()
	for _, addr := range l.hosts["d"].addrs {
		l.waitFor("pod a reaches pod d by the overlay", "a", addr.String(), "8080", "d=a")
	}
}

// waitFor asks until the answer is right.
func (l *lab) waitFor(what, from, addr, port, want string) {
	l.Helper()
	ask, _, err := readAsk([]string{from, "tcp", join(addr, port), want})
	l.must(err)
	var seen []string
	began := time.Now()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		answer := l.ask(ask, silence)
		if answer == want {
			l.Logf("%s after %s", what, time.Since(began).Round(time.Millisecond))
			return
		}
		if len(seen) < 5 {
			seen = append(seen, answer)
		}
		time.Sleep(20 * time.Millisecond)
	}
	l.Fatalf("waited 30 s until %s: %v", what, seen)
}

func join(addr, port string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]:" + port
	}
	return addr + ":" + port
}
