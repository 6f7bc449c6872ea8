// Package envoytest is a real Envoy for tests, fed by a real server.
package envoytest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/internal/envoy/authz"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/xds"
	"hythe.dev/hythe/xds/server"
)

// A Rig is an Envoy that ends with the test.
type Rig struct {
	Settings xds.Settings
	Server   *server.Server
	// Admin is the path of the socket of Envoy's admin pages.
	Admin string
	// Auth is the file of the doorkeeper that Envoy asks. StopDoorkeeper ends it.
	Auth           auth.Writer
	StopDoorkeeper func()
	// Output is what Envoy wrote to its standard output and error so far.
	Output *Output
}

// Output keeps what is written to it.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write keeps p.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String is all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// New starts an Envoy, or skips the test where there is none. logs, if not nil, takes the log of marked requests.
func New(t *testing.T, logs servicev3.AccessLogServiceServer) *Rig {
	t.Helper()
	path := testenv.Envoy(t)
	dir, err := os.MkdirTemp("", "hythe") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &Rig{
		Settings: xds.Settings{HTTP: testenv.FreeAddress(t), HTTPS: testenv.FreeAddress(t), Ready: testenv.FreeAddress(t), HTTPSPort: 8443},
		Admin:    filepath.Join(dir, "admin.sock"),
		Output:   new(Output),
	}
	if logs != nil {
		r.Settings.TraceLog = envoy.GatewayCluster
	}
	r.Auth.Path = filepath.Join(dir, "auth.json")
	r.Settings.AuthSocket = filepath.Join(dir, "auth.sock")
	r.StartDoorkeeper(t)
	socket := filepath.Join(dir, "xds.sock")
	r.Server, err = server.New(server.Options{
		Socket: socket, Grace: time.Millisecond, AccessLogs: logs, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Server.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	p, err := envoy.Start(t.Context(), envoy.Options{
		Path: path, BootstrapFile: filepath.Join(dir, "bootstrap.yaml"), Concurrency: 1, DrainTime: time.Second,
		Bootstrap: envoy.BootstrapOptions{Node: "n1", XDSSocket: socket, AdminSocket: r.Admin},
		Output:    io.MultiWriter(t.Output(), r.Output),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Wait() }) // the test's context, which has just ended, ends Envoy
	return r
}

// StartDoorkeeper starts one, which ends with the test or by StopDoorkeeper.
func (r *Rig) StartDoorkeeper(t *testing.T) {
	t.Helper()
	d := authz.New(authz.Options{
		Socket: r.Settings.AuthSocket, Table: r.Auth.Path, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	r.StopDoorkeeper = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.StopDoorkeeper)
}

// Set builds the resources of a Config and waits until Envoy has acknowledged, or refused, each of them.
func (r *Rig) Set(t *testing.T, config gateway.Config) (xds.Resources, server.Status) {
	t.Helper()
	resources, problems := xds.Build(config, r.Settings)
	for _, p := range problems {
		t.Logf("problem: %s", p)
	}
	if err := r.Auth.Set(config.Auth, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.Server.Set(resources)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		s := r.Server.Status()
		if s.Ready && s.Outstanding == 0 {
			return resources, s
		}
		if time.Now().After(deadline) {
			t.Fatalf("Envoy does not acknowledge all within 20 s: %s", s)
		}
	}
}

// Config has one host with one backend, and a default certificate.
func Config(t *testing.T, host string, endpoints ...netip.AddrPort) gateway.Config {
	t.Helper()
	chain, key := Pair(t, "default")
	return gateway.Config{
		Certificates: []gateway.Certificate{{Name: gateway.DefaultCertificateName, Chain: chain, Key: key}},
		Backends:     []gateway.Backend{{Name: "shop/web:http", Endpoints: "shop/web:http"}},
		EndpointSets: []gateway.EndpointSet{{Name: "shop/web:http", Addresses: endpoints}},
		Hosts: []gateway.Host{{
			Name: host, Certificate: gateway.DefaultCertificateName,
			Routes:    []gateway.Route{{Match: gateway.Prefix, Path: "/", Backend: "shop/web:http", Origin: origin}},
			Ingresses: []model.Key{origin},
		}},
	}
}

var origin = model.Key{Namespace: "shop", Name: "shop"}

// Pair makes a self-signed certificate for DNS names, and its key, both PEM.
func Pair(t *testing.T, common string, names ...string) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: common}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}
