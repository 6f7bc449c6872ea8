package kubetest

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"hythe.dev/hythe/internal/lab/apiserver"
	"hythe.dev/hythe/internal/testenv"
)

// Save copies etcd's data while etcd and kube-apiserver rest, as a backup does, and returns where they are. Both run
// again when it returns.
func (s *Server) Save() (dir string) {
	s.tb.Helper()
	dir = filepath.Join(s.tb.TempDir(), "etcd")
	s.StopAPI()
	s.etcd.stop()
	if err := os.CopyFS(dir, os.DirFS(s.data())); err != nil {
		s.tb.Fatal(err)
	}
	s.startEtcd()
	s.StartAPI()
	return dir
}

// Restore starts etcd with older data. Its revision, and with it every resource version, goes back to what it was then.
// kube-apiserver is killed, if it runs, and not started.
func (s *Server) Restore(dir string) {
	s.tb.Helper()
	s.StopAPI()
	s.etcd.stop()
	if err := os.RemoveAll(s.data()); err != nil {
		s.tb.Fatal(err)
	}
	if err := os.CopyFS(s.data(), os.DirFS(dir)); err != nil {
		s.tb.Fatal(err)
	}
	s.startEtcd()
}

func (s *Server) data() string { return filepath.Join(s.plan.Dir, "etcd") }

// Lose deletes from etcd all objects whose key has a prefix, for example "services/specs/default/". A kube-apiserver that
// runs tells its watches; one that is started later knows nothing of them.
func (s *Server) Lose(prefix string) {
	s.tb.Helper()
	from := []byte("/registry/" + prefix)
	to := append([]byte{}, from...)
	to[len(to)-1]++ // all keys with the prefix (etcd API, RangeRequest.range_end)
	encode := base64.StdEncoding.EncodeToString
	s.etcdCall("/v3/kv/deleterange", fmt.Sprintf(`{"key": %q, "range_end": %q}`, encode(from), encode(to)), nil)
}

// A Second is another kube-apiserver on the same etcd.
type Second struct {
	server *Server
	plan   apiserver.Server
	api    *process
}

// Second makes one that does not run yet, and ends with the test.
func (s *Server) Second() *Second {
	s.tb.Helper()
	out := &Second{server: s, plan: s.plan}
	out.plan.Address = netip.AddrPortFrom(loopback(), testenv.FreePort(s.tb))
	s.tb.Cleanup(out.Stop)
	return out
}

// URL is where it answers when it runs.
func (s *Second) URL() string { return s.plan.URL() }

// Start runs it and waits until it is ready.
func (s *Second) Start() {
	s.server.tb.Helper()
	s.api = s.server.run("second-kube-apiserver", s.plan.API())
	s.server.ready(s.plan.URL(), s.api)
}

// Stop kills it.
func (s *Second) Stop() { s.api.stop() }
