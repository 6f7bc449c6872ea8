package forward

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// A server is an API server that knows lists of pods, and port-forwarding by SPDY alone.
type server struct {
	http.Handler
	pods       corev1.PodList
	deny       map[string]bool // "list", "portforward"
	websockets atomic.Int32    // those that were refused
	upgrades   atomic.Int32
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	forward := strings.HasSuffix(r.URL.Path, "/portforward")
	switch {
	case forward && s.deny["portforward"], !forward && s.deny["list"]:
		s.answer(w, http.StatusForbidden, metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden,
			Code: http.StatusForbidden, Message: "it is forbidden",
		})
	case forward && strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		s.websockets.Add(1)
		http.Error(w, "no WebSockets here", http.StatusBadRequest)
	case forward:
		s.upgrades.Add(1)
		s.forward(w, r)
	case r.URL.Query().Get("labelSelector") == PartOf:
		s.answer(w, http.StatusOK, s.pods)
	default:
		http.Error(w, "unknown question", http.StatusNotFound)
	}
}

func (s *server) answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// forward does what a kubelet does: a pair of streams for each connection, to the port that they name.
func (s *server) forward(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 8)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		streams <- stream
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	failures := map[string]httpstream.Stream{}
	for {
		select {
		case <-conn.CloseChan():
			return
		case stream := <-streams:
			id := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
			if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				failures[id] = stream
				continue
			}
			go pipe(stream, failures[id])
		}
	}
}

func pipe(data, failed httpstream.Stream) {
	defer data.Close()
	defer failed.Close()
	to, err := net.Dial("tcp4", "127.0.0.1:"+data.Headers().Get(corev1.PortHeader))
	if err != nil {
		_, _ = io.WriteString(failed, "error forwarding port: IPv4: "+err.Error()+" IPv6 dial tcp6: no suitable address found")
		return
	}
	defer to.Close()
	go io.Copy(to, data) //nolint:errcheck // ends with the connection
	_, _ = io.Copy(data, to)
}

func open(t *testing.T, s *server) *API {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.CloseClientConnections)
	api, err := Open(&rest.Config{Host: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func dialer(t *testing.T, api *API, pod Pod) *Dialer {
	t.Helper()
	d, err := api.Dialer(pod)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func get(ctx context.Context, d *Dialer, port uint16, path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.Dial(ctx, port)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pod"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// Questions at the same time and after each other go over one connection to the API server. WebSocket is tried, and where it
// does not pass, SPDY.
func TestDial(t *testing.T) {
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat(r.URL.Path, 1<<15))
	}))
	defer admin.Close()
	port := netip.MustParseAddrPort(admin.Listener.Addr().String()).Port()
	s := &server{}
	d := dialer(t, open(t, s), Pod{Namespace: "hythe-system", Name: "node-a"})
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			got, err := get(t.Context(), d, port, "/inspect/process")
			if err == nil && got != strings.Repeat("/inspect/process", 1<<15) {
				t.Errorf("the answer has %d bytes", len(got))
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if s.websockets.Load() != 1 || s.upgrades.Load() != 1 {
		t.Errorf("%d WebSockets and %d SPDY connections, want 1 of each", s.websockets.Load(), s.upgrades.Load())
	}
	d.Close() // as if it broke
	if _, err := get(t.Context(), d, port, "/"); err != nil || s.upgrades.Load() != 2 {
		t.Errorf("after the connection broke: %v, %d connections", err, s.upgrades.Load())
	}
}

// What is in the way is said, with the remedy.
func TestErrors(t *testing.T) {
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(closed.Addr().String()).Port()
	closed.Close()
	pod := Pod{Namespace: "hythe-system", Name: "node-a"}
	check := func(what string, err error, want ...string) {
		t.Helper()
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q in it", what, err, w)
			}
		}
	}
	s := &server{}
	api := open(t, s)
	_, err = get(t.Context(), dialer(t, api, pod), port, "/")
	check("a closed port", err, "in the pod: connection refused")
	if err != nil && strings.Contains(err.Error(), "IPv6") {
		t.Errorf("the runtime's own words are left: %v", err)
	}
	pod.Waits = "container node: CrashLoopBackOff"
	before := s.upgrades.Load()
	_, err = get(t.Context(), dialer(t, api, pod), port, "/")
	check("a pod that does not run", err, "CrashLoopBackOff")
	if s.upgrades.Load() != before {
		t.Error("a pod that does not run was asked")
	}
	pod.Waits = ""
	_, err = api.Pods(t.Context(), "elsewhere")
	check("no pods", err, "namespace elsewhere", PartOf, "--hythe-namespace")
	s.deny = map[string]bool{"list": true, "portforward": true}
	_, err = api.Pods(t.Context(), "hythe-system")
	check("no right to list", err, "list pods", "create pods/portforward", "namespace hythe-system")
	_, err = get(t.Context(), dialer(t, api, pod), port, "/")
	check("no right to forward", err, "create pods/portforward", "namespace hythe-system")
	nobody, err := Open(&rest.Config{Host: "http://" + closed.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = nobody.Pods(t.Context(), "hythe-system")
	check("no API server", err, closed.Addr().String(), "refused")
}

func TestDialEndsWithItsContext(t *testing.T) {
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer stuck.CloseClientConnections()
	api, err := Open(&rest.Config{Host: stuck.URL})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dialer(t, api, Pod{Namespace: "a", Name: "b"}).Dial(ctx, 1); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a server that hangs: %v", err)
	}
}

func TestPods(t *testing.T) {
	pod := func(name, component, node string, status corev1.PodStatus) corev1.Pod {
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "hythe-system", Name: name, Labels: map[string]string{componentLabel: component}},
			Spec:       corev1.PodSpec{NodeName: node}, Status: status,
		}
	}
	state := func(s corev1.ContainerState) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "node", State: s}}}
	}
	s := &server{pods: corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{
		pod("node-b", "node", "b", state(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}})),
		pod("node-a", "node", "a", state(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})),
		pod("node-c", "node", "c", state(corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 1}})),
		pod("gone", "node", "a", corev1.PodStatus{Phase: corev1.PodFailed}),
		pod("first", "controller", "", corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "no node is ready"},
		}}),
	}}}
	got, err := open(t, s).Pods(t.Context(), "hythe-system")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range got {
		lines = append(lines, p.Component+": "+p.String()+" "+p.Waits)
	}
	want := `controller: hythe-system/first not scheduled: no node is ready
node: hythe-system/node-a on a 
node: hythe-system/node-b on b container node: CrashLoopBackOff
node: hythe-system/node-c on c container node ended: Error, exit code 1`
	if text := strings.Join(lines, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}
