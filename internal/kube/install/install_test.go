package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestGone says that the pods of a dead node, which nobody ends, do not keep an uninstall waiting, and all others do.
func TestGone(t *testing.T) {
	for name, c := range map[string]struct {
		deleted time.Duration // how long ago the pod's end was due; 0 for one that is not deleted
		want    error
	}{
		"it runs":          {0, errWaits},
		"it ends just now": {time.Second, errWaits},
		"its end is to be": {-time.Minute, errWaits},
		"its node is dead": {overdue + time.Minute, nil},
	} {
		t.Run(name, func(t *testing.T) {
			meta := metav1.ObjectMeta{Name: "pod"}
			if c.deleted != 0 {
				meta.DeletionTimestamp = &metav1.Time{Time: time.Now().Add(-c.deleted)}
			}
			asked := make(chan struct{}, 100)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked <- struct{}{}
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(metav1.PartialObjectMetadataList{
					TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"},
					Items:    []metav1.PartialObjectMetadata{{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: meta}},
				})
			}))
			defer server.Close()
			cluster, err := New(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			gone := make(chan error, 1)
			go func() { gone <- cluster.Gone(t.Context(), "hythe-system", "a=b") }()
			<-asked
			got := errWaits
			select {
			case got = <-gone:
			case <-asked: // again, as the pod is there still
			}
			if !errors.Is(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

var errWaits = errors.New("it waits")

// TestDaemonSetReady: an uninstall waits for nodes that live, and tells of those that do not.
func TestDaemonSetReady(t *testing.T) {
	const list = `{"kind":"%sList","apiVersion":"v1","items":[%s]}`
	node := func(name, ready string) string {
		return fmt.Sprintf(`{"kind":"Node","apiVersion":"v1","metadata":{"name":%q},"status":{"conditions":[{"type":"Ready","status":%q}]}}`, name, ready)
	}
	pod := func(node, ready string) string {
		return fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p-%[1]s"},"spec":{"nodeName":%[1]q},"status":{"conditions":[{"type":"Ready","status":%[2]q}]}}`, node, ready)
	}
	const unscheduled = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n2"]}]}]}}}}}`
	both := []string{node("n1", "True"), node("n2", "True")}
	for name, c := range map[string]struct {
		nodes, pods []string
		skipped     string
		says        string // of the error, "" for none
	}{
		"all are clean":             {both, []string{pod("n1", "True"), pod("n2", "True")}, "", ""},
		"one is not clean yet":      {both, []string{pod("n1", "True"), pod("n2", "False")}, "", "n2 <nil>"},
		"one has no pod yet":        {both, []string{pod("n1", "True")}, "", "there are 1, for 2 nodes"},
		"one is dead":               {[]string{node("n1", "True"), node("n2", "Unknown")}, []string{pod("n1", "True"), pod("n2", "False")}, "n2", ""},
		"one is dead, unassigned":   {[]string{node("n1", "True"), node("n2", "False")}, []string{pod("n1", "True"), unscheduled}, "n2", ""},
		"it died when it was clean": {[]string{node("n1", "True"), node("n2", "Unknown")}, []string{pod("n1", "True"), pod("n2", "True")}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch r.URL.Path {
				case "/api/v1/nodes":
					_, _ = fmt.Fprintf(w, list, "Node", strings.Join(c.nodes, ","))
				case "/api/v1/namespaces/hythe-system/pods":
					_, _ = fmt.Fprintf(w, list, "Pod", strings.Join(c.pods, ","))
				default:
					_, _ = fmt.Fprint(w, `{"kind":"DaemonSet","apiVersion":"apps/v1","metadata":{"name":"d","namespace":"hythe-system","generation":1},
"spec":{"selector":{"matchLabels":{"a":"b"}}},"status":{"observedGeneration":1,"desiredNumberScheduled":2}}`)
				}
			}))
			defer server.Close()
			cluster, err := New(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			daemonSet, err := cluster.client.Resource(daemonSets).Namespace("hythe-system").Get(t.Context(), "d", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			waiting, dead, err := cluster.unready(t.Context(), daemonSet)
			if strings.Join(dead, ",") != c.skipped {
				t.Errorf("skipped are %q, want %q", dead, c.skipped)
			}
			if c.says != "" {
				if got := fmt.Sprintf("%s %v", strings.Join(waiting, ","), err); !strings.Contains(got, c.says) {
					t.Errorf("waits for %q, error %v, want %q", waiting, err, c.says)
				}
				return
			}
			if len(waiting) > 0 || err != nil {
				t.Fatalf("it waits for %q, error %v", waiting, err)
			}
			if skipped, err := cluster.DaemonSetReady(t.Context(), "hythe-system", "d"); err != nil || strings.Join(skipped, ",") != c.skipped {
				t.Errorf("skipped are %q, error %v, want %q", skipped, err, c.skipped)
			}
		})
	}
}
