package stub_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"hythe.dev/hythe/conformance/bench/stub"
)

func service(name, ip string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip}}
}

func get(t *testing.T, url, accept string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// next reads one event of a watch in JSON.
func next(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	if !lines.Scan() {
		t.Fatal("the watch ended: ", lines.Err())
	}
	var event struct {
		Type   string
		Object corev1.Service
	}
	if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
		t.Fatal(err)
	}
	end := event.Object.Annotations[metav1.InitialEventsAnnotationKey]
	return fmt.Sprint(event.Type, " ", event.Object.Name, " ", event.Object.Spec.ClusterIP, " ", event.Object.ResourceVersion, end)
}

// TestWatch lists by watch, goes on with changes, and goes on from a version as a second client.
func TestWatch(t *testing.T) {
	s, err := stub.New()
	if err != nil {
		t.Fatal(err)
	}
	s.Fill(service("one", "10.96.0.1"), service("two", "10.96.0.2"))
	change, err := s.Put(service("one", "10.96.0.9"))
	if err != nil {
		t.Fatal(err)
	}
	gone, err := s.Delete(service("two", "10.96.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.CloseClientConnections)
	url := server.URL + "/api/v1/services?watch=true"
	first := bufio.NewScanner(get(t, url+"&sendInitialEvents=true", "application/json").Body)
	for _, want := range []string{"ADDED one 10.96.0.1 2", "ADDED two 10.96.0.2 3", "BOOKMARK   3true"} {
		if got := next(t, first); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	change.Send()
	gone.Send()
	second := bufio.NewScanner(get(t, url+"&resourceVersion=4", "application/json").Body)
	for _, want := range []string{"MODIFIED one 10.96.0.9 4", "DELETED two 10.96.0.2 5"} {
		if got := next(t, first); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := next(t, second); got != "DELETED two 10.96.0.2 5" {
		t.Errorf("from version 4 on: %q", got)
	}
}

// TestList reads a list as protobuf, and an object that is not there.
func TestList(t *testing.T) {
	s, err := stub.New()
	if err != nil {
		t.Fatal(err)
	}
	s.Fill(service("one", "10.96.0.1"))
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	data, err := io.ReadAll(get(t, server.URL+"/api/v1/services", runtime.ContentTypeProtobuf).Body)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	object, err := runtime.Decode(serializer.NewCodecFactory(scheme).UniversalDeserializer(), data)
	if err != nil {
		t.Fatal(err)
	}
	list, ok := object.(*corev1.ServiceList)
	if !ok || len(list.Items) != 1 || list.Items[0].Name != "one" || list.ResourceVersion != "2" {
		t.Errorf("%T %v", object, object)
	}
	if r := get(t, server.URL+"/api/v1/nodes/none", "application/json"); r.StatusCode != http.StatusNotFound {
		t.Error(r.Status)
	}
	if r := get(t, server.URL+"/apis/hythe.dev/v1alpha1/addressclaims", runtime.ContentTypeProtobuf); r.Header.Get("Content-Type") != runtime.ContentTypeJSON {
		t.Error("custom resources are served as ", r.Header.Get("Content-Type"))
	}
}
