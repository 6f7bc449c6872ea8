package services

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/internal/lab/apiserver"
	"hythe.dev/hythe/internal/testenv"
)

// A rival is the real kube-proxy in nftables mode, fed by a real API server. What can be set is as by default, but for how
// to tell pods from others.
type rival struct {
	*lab
	api *kubetest.Server
	// there are the documents by path, to see what changed.
	there map[string]string
}

// findKubeProxy skips the test where it is not built.
func findKubeProxy(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	if os.Getenv("HYTHE_API") != "1" {
		t.Skip("needs kube-proxy and an API server: run make services")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "hythe", "bin", "kube-proxy")
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs kube-proxy: build it with scripts/kubernetes.sh build kube-proxy")
	}
	return path
}

func (l *lab) startRival(path string) *rival {
	l.Helper()
	r := &rival{lab: l, there: map[string]string{}}
	r.api = kubetest.Start(l.T, func(s *apiserver.Server) { s.SecondServiceCIDR = "fd00::a60:0/112" })
	r.put(baseObjects())
	l.startAgents(false)
	l.overlayWorks()
	node := l.hosts["node1"]
	l.forward(node, r.api.Addr())
	l.start(node, path, "--kubeconfig="+r.api.Kubeconfig("kube-proxy", "system:masters"), "--hostname-override=node1", "--proxy-mode=nftables",
		"--detect-local-mode=ClusterCIDR", "--cluster-cidr=10.244.0.0/16,"+Six("10.244.0.0/16"),
		"--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
	return r
}

// forward lets a host reach an address of the machine's own loopback at the same address.
func (l *lab) forward(h *host, addr string) {
	l.Helper()
	var listener net.Listener
	var err error
	l.in(h, func() { listener, err = net.Listen("tcp", addr) })
	l.must(err)
	l.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				up, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer up.Close()
				go func() { _, _ = io.Copy(up, c); _ = up.Close() }()
				_, _ = io.Copy(c, up)
			}()
		}
	}()
}

func (r *rival) apply(_ int, objects string) { r.put(baseObjects() + objects) }

// put creates and replaces objects, and deletes those that were there before.
func (r *rival) put(objects string) {
	r.Helper()
	now := map[string]string{}
	var changed strings.Builder
	for document := range strings.SplitSeq(objects, "---\n") {
		o := unstructured.Unstructured{}
		r.must(yaml.Unmarshal([]byte(document), &o.Object))
		if len(o.Object) == 0 {
			continue
		}
		path := kubetest.Path(o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName())
		now[path] = document
		if r.there[path] == "" {
			changed.WriteString("---\n" + document)
		} else if r.there[path] != document {
			r.replace(path, o)
		}
	}
	for path := range r.there {
		if now[path] == "" {
			if code, body := r.api.Do("DELETE", path, nil); code >= 300 {
				r.Fatalf("DELETE %s: %d: %s", path, code, body)
			}
		}
	}
	r.api.Apply(changed.String())
	r.there = now
}

// replace puts an object, and its status, in the place of what is there. A Service cannot be created again: its address is
// taken, by itself.
func (r *rival) replace(path string, o unstructured.Unstructured) {
	r.Helper()
	paths := []string{path}
	if o.GetKind() == "Service" {
		paths = append(paths, path+"/status")
	}
	for _, path := range paths {
		there := r.api.Get(o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName())
		o.SetResourceVersion(there.GetResourceVersion())
		data, err := o.MarshalJSON()
		r.must(err)
		if code, body := r.api.Do("PUT", path, data); code >= 300 {
			r.Fatalf("PUT %s: %d: %s", path, code, body)
		}
	}
}
