package client

import (
	"fmt"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"hythe.dev/hythe/api/v1alpha1"
)

const (
	// idlePing is how long a connection may be silent before it is asked for a sign of life.
	idlePing = 5 * time.Second
	// dialTimeout bounds a connection's start, and TLS's after that.
	dialTimeout = 5 * time.Second
)

// A RESTConfig says how to reach an API server.
type RESTConfig = rest.Config

// Config reads a kubeconfig file; an empty path takes the service account of the pod that this runs in.
func Config(kubeconfig string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("configure Kubernetes client: %w", err)
	}
	return config, nil
}

// Clients are REST clients on one connection, by group and version.
type Clients struct {
	HTTP   *http.Client
	ByGV   map[schema.GroupVersion]*rest.RESTClient
	Custom dynamic.Interface // for kinds that the API serves untyped
}

// FieldManager is how the API server names what Hythe wrote in managedFields: the begin of the User-Agent.
const FieldManager = v1alpha1.FieldManager

// Connect makes clients; it opens no connection yet. A connection that is silent for ping, and for as long again
// when asked, is given up: half-dead ones would else stay for many minutes.
func Connect(config *rest.Config, ping time.Duration) (*Clients, error) {
	c := &Clients{ByGV: map[schema.GroupVersion]*rest.RESTClient{}}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("make Kubernetes client: %w", err)
		}
	}
	config = rest.CopyConfig(config)
	config.UserAgent = FieldManager
	config.QPS = -1 // the server's priority and fairness is the judge
	tls, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, fmt.Errorf("make Kubernetes client: %w", err)
	}
	if ping == 0 {
		ping = idlePing
	}
	dial := config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: ping}).DialContext
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSClientConfig: tls,
		TLSHandshakeTimeout: dialTimeout, ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second,
		HTTP2: &http.HTTP2Config{SendPingTimeout: ping, PingTimeout: ping, WriteByteTimeout: 2 * ping},
	}
	wrapped, err := rest.HTTPWrappersForConfig(config, transport)
	if err != nil {
		return nil, fmt.Errorf("make Kubernetes client: %w", err)
	}
	c.HTTP = &http.Client{Transport: readOnce{wrapped}}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	for _, gv := range []schema.GroupVersion{
		corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion, networkingv1.SchemeGroupVersion, v1alpha1.GroupVersion,
	} {
		own := rest.CopyConfig(config)
		own.GroupVersion, own.APIPath, own.NegotiatedSerializer = &gv, "/apis", codecs
		if gv.Group == "" {
			own.APIPath = "/api"
		}
		own.ContentType = runtime.ContentTypeProtobuf
		own.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		if gv == v1alpha1.GroupVersion { // the API serves custom resources as JSON and CBOR only
			own.ContentType, own.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
		}
		if c.ByGV[gv], err = rest.RESTClientForConfigAndClient(own, c.HTTP); err != nil {
			return nil, fmt.Errorf("make Kubernetes client for %s: %w", gv, err)
		}
	}
	if c.Custom, err = dynamic.NewForConfigAndClient(config, c.HTTP); err != nil {
		return nil, fmt.Errorf("make Kubernetes client of custom resources: %w", err)
	}
	return c, nil
}

// readOnce hides from client-go when a server that refuses a read wants to be asked again: it would wait and ask the same
// up to ten times, and nobody would hear why, nor ask otherwise (a resourceVersion that is too large for this server). Who
// reads tries again, with growing pauses.
type readOnce struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (o readOnce) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := o.next.RoundTrip(r)
	if err == nil && r.Method == http.MethodGet && response.StatusCode != http.StatusOK {
		response.Header.Del("Retry-After")
	}
	return response, err
}
