package charts_test

import (
	"io"
	"net/http"
	"testing"

	"hythe.dev/hythe/internal/kube/client"
)

// asTable reads an object as kubectl get does.
func asTable(t *testing.T, config *client.RESTConfig, url string) []byte {
	t.Helper()
	clients, err := client.Connect(config, 0)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	response, err := clients.HTTP.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}
