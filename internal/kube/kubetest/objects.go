package kubetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/lab/apiserver"
)

// Path is the URL path of an object, or of all objects of its kind if name is empty.
func Path(apiVersion, kind, namespace, name string) string {
	return apiserver.Path(apiVersion, kind, namespace, name)
}

// Do sends a request as an administrator and returns the answer's code and body.
func (s *Server) Do(method, path string, body []byte) (int, []byte) {
	s.tb.Helper()
	return s.DoAs(s.admin(), method, path, body)
}

// DoAs sends a request with another client.
func (s *Server) DoAs(client *http.Client, method, path string, body []byte) (int, []byte) {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(s.tb.Context(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "https://"+s.Addr()+path, bytes.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := client.Do(request)
	if err != nil {
		s.tb.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		s.tb.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, data
}

// As is a client for DoAs with all rights, whose writes are noted in managedFields as manager's.
func (s *Server) As(manager string) *http.Client {
	s.tb.Helper()
	config := s.Config()
	config.UserAgent = manager
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		s.tb.Fatal(err)
	}
	return c
}

// admin is one client for all requests of an administrator.
func (s *Server) admin() *http.Client {
	s.tb.Helper()
	if s.client == nil {
		client, err := rest.HTTPClientFor(s.Config())
		if err != nil {
			s.tb.Fatal(err)
		}
		s.client = client
	}
	return s.client
}

// Get reads an object of the API.
func (s *Server) Get(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	s.tb.Helper()
	path := Path(apiVersion, kind, namespace, name)
	code, body := s.Do(http.MethodGet, path, nil)
	if code != http.StatusOK {
		s.tb.Fatalf("GET %s: %d: %s", path, code, body)
	}
	out := &unstructured.Unstructured{}
	if err := json.Unmarshal(body, &out.Object); err != nil {
		s.tb.Fatal(err)
	}
	return out
}

// Apply creates the objects of some YAML documents, or replaces those that exist, with their status.
func (s *Server) Apply(manifests string) {
	s.tb.Helper()
	s.each(manifests, true)
}

// each creates objects; with replace, those that exist are replaced.
func (s *Server) each(manifests string, replace bool) {
	s.tb.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifests)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		o := unstructured.Unstructured{}
		if err == nil {
			err = yaml.Unmarshal(document, &o.Object)
		}
		if err != nil {
			s.tb.Fatal(err)
		}
		if len(o.Object) > 0 {
			s.apply(&o, replace)
		}
	}
}

func (s *Server) apply(o *unstructured.Unstructured, replace bool) {
	s.tb.Helper()
	if apiserver.Clustered(o.GetKind()) {
		o.SetNamespace("")
	} else if o.GetNamespace() == "" {
		o.SetNamespace("default")
	}
	if namespace := o.GetNamespace(); namespace != "" {
		s.Do(http.MethodPost, "/api/v1/namespaces", fmt.Appendf(nil, `{"metadata":{"name":%q}}`, namespace))
	}
	all := Path(o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), "")
	status, hasStatus := o.Object["status"]
	code, answer := s.send(http.MethodPost, all, o)
	if code == http.StatusConflict && !replace {
		return
	}
	if code == http.StatusConflict {
		live := s.Get(o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName())
		o.SetResourceVersion(live.GetResourceVersion())
		code, answer = s.send(http.MethodPut, all+"/"+o.GetName(), o)
	}
	if code >= 300 {
		s.tb.Fatalf("apply %s %s: %d: %s", o.GetKind(), o.GetName(), code, answer)
	}
	if !hasStatus || o.GetKind() == "CustomResourceDefinition" {
		return
	}
	live := s.Get(o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName())
	live.Object["status"] = status
	if code, answer := s.send(http.MethodPut, all+"/"+o.GetName()+"/status", live); code >= 300 {
		s.tb.Fatalf("apply status of %s %s: %d: %s", o.GetKind(), o.GetName(), code, answer)
	}
}

func (s *Server) send(method, path string, o *unstructured.Unstructured) (int, []byte) {
	s.tb.Helper()
	data, err := json.Marshal(o.Object)
	if err != nil {
		s.tb.Fatal(err)
	}
	return s.Do(method, path, data)
}

// Delete deletes an object at once.
func (s *Server) Delete(apiVersion, kind, namespace, name string) {
	s.tb.Helper()
	path := Path(apiVersion, kind, namespace, name)
	if code, answer := s.Do(http.MethodDelete, path, nil); code >= 300 {
		s.tb.Fatalf("DELETE %s: %d: %s", path, code, answer)
	}
}

// CreateFiles creates the objects of all YAML files of a folder; those that exist stay as they are.
func (s *Server) CreateFiles(dir string) {
	s.tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		s.tb.Fatalf("no files in %s: %v", dir, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			s.tb.Fatal(err)
		}
		s.each(string(data), false)
	}
}

// InstallCRDs applies the CustomResourceDefinitions of a folder and waits until the API serves them.
func (s *Server) InstallCRDs(dir string) {
	s.tb.Helper()
	s.CreateFiles(dir)
	s.wait("the API of the custom resources", func(context.Context) error {
		for _, kind := range []string{"AddressPool", "AddressClaim", "Report", "GatewayConfig"} {
			if code, body := s.Do(http.MethodGet, Path("hythe.dev/v1alpha1", kind, "", ""), nil); code != http.StatusOK {
				return fmt.Errorf("%s: %d: %s", kind, code, body)
			}
		}
		return nil
	})
}
