package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// requestTimeout bounds one request.
const requestTimeout = 5 * time.Second

// A Dialer connects to an address; nil for the ordinary one.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// A Client is an administrator of a Server.
type Client struct {
	url  string
	http *http.Client
}

// NewClient makes a Client of the group system:masters, which may do everything.
func NewClient(a *Authority, url string, dial Dialer) (*Client, error) {
	chain, key, err := a.Issue("lab", []string{"system:masters"})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("make administrator of the API: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	return &Client{url: url, http: &http.Client{Timeout: requestTimeout, Transport: &http.Transport{
		DialContext: dial, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}},
		HTTP2:           &http.HTTP2Config{SendPingTimeout: requestTimeout, PingTimeout: requestTimeout},
	}}}, nil
}

// A StatusError is an answer of the API that is no success.
type StatusError struct {
	Code    int
	Message string
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

// refused says whether the same request would be refused again.
func (e *StatusError) refused() bool {
	return e.Code >= 400 && e.Code < 500 && e.Code != http.StatusTooManyRequests && e.Code != http.StatusConflict &&
		e.Code != http.StatusNotFound // of a kind whose definition is not served yet
}

// Do sends a request and decodes the answer into out, unless that is nil.
func (c *Client) Do(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		var status struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(data, &status) != nil || status.Message == "" {
			status.Message = strings.TrimSpace(string(data))
		}
		return &StatusError{Code: response.StatusCode, Message: status.Message}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// Ready asks whether the server is ready.
func (c *Client) Ready(ctx context.Context) error {
	return c.Do(ctx, http.MethodGet, "/readyz", "", nil, nil)
}

// Apply creates an object, or makes the fields that it has, and had when it was last applied, as it says. A status is
// applied too.
func (c *Client) Apply(ctx context.Context, o *unstructured.Unstructured) error {
	o = o.DeepCopy()
	status, hasStatus := o.Object["status"]
	delete(o.Object, "status")
	unstructured.RemoveNestedField(o.Object, "metadata", "creationTimestamp")
	path := Path(o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName())
	const query = "?fieldManager=lab&force=true"
	if err := c.apply(ctx, path+query, o); err != nil || !hasStatus || !writesStatus(o.GetKind()) {
		return err
	}
	o.Object["status"] = status
	return c.apply(ctx, path+"/status"+query, o)
}

func (c *Client) apply(ctx context.Context, path string, o *unstructured.Unstructured) error {
	data, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	return c.Do(ctx, http.MethodPatch, path, "application/apply-patch+yaml", data, nil)
}

// Delete deletes an object; one that is gone is no error.
func (c *Client) Delete(ctx context.Context, apiVersion, kind, namespace, name string) error {
	err := c.Do(ctx, http.MethodDelete, Path(apiVersion, kind, namespace, name), "", nil, nil)
	var status *StatusError
	if errors.As(err, &status) && status.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// writesStatus says whether the status of a kind is written by who writes its objects, and not by Hythe.
func writesStatus(kind string) bool { return kind == "Node" }

// Clustered says whether objects of a kind have no namespace.
func Clustered(kind string) bool {
	switch kind {
	case "Namespace", "Node", "IngressClass", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding",
		"AddressPool", "AddressClaim", "Report", "GatewayConfig":
		return true
	}
	return false
}

// Path is the URL path of an object, or of all objects of its kind if name is empty.
func Path(apiVersion, kind, namespace, name string) string {
	plural := strings.ToLower(kind)
	if strings.HasSuffix(plural, "s") {
		plural += "es"
	} else {
		plural += "s"
	}
	path := "/apis/" + apiVersion
	if !strings.Contains(apiVersion, "/") {
		path = "/api/" + apiVersion
	}
	if namespace != "" && !Clustered(kind) {
		path += "/namespaces/" + namespace
	}
	path += "/" + plural
	if name != "" {
		path += "/" + name
	}
	return path
}

// Stream begins a GET request without end, such as a watch, and returns what comes until ctx is done or it is closed.
func (c *Client) Stream(ctx context.Context, path string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Client{Transport: c.http.Transport}).Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, &StatusError{Code: response.StatusCode, Message: response.Status}
	}
	return response.Body, nil
}
