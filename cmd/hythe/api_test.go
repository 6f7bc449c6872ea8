package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/internal/kube/kubetest"
	"hythe.dev/hythe/lb"
)

// TestAPIMode runs controller and gateway, as their commands do, against a real API server.
func TestAPIMode(t *testing.T) {
	s := kubetest.Start(t)
	s.InstallCRDs("../../charts/hythe/crds")
	s.CreateFiles("../../internal/kube/testdata/api")
	s.CreateFiles("../../examples")
	kubeconfig := s.Kubeconfig("admin", "system:masters")
	dead, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	servers := []string{"https://" + dead.Addr().String(), "https://" + s.Addr()}
	base := process{kubeconfig: kubeconfig, apiservers: servers, admin: "unix:" + filepath.Join(t.TempDir(), "admin"), level: slog.LevelWarn}

	c := controller{process: base, settings: lb.Settings{GatewayService: defaultGatewayService}, namespace: "hythe-system"}
	if err := c.start("controller"); err != nil {
		t.Fatal(err)
	}
	g := gatewayProcess{process: base, node: "n7", socket: filepath.Join(t.TempDir(), "xds.sock")}
	g.admin = "unix:" + filepath.Join(t.TempDir(), "admin")
	if err := g.start("gateway"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- c.run(ctx) }()
	go func() { done <- g.run(ctx) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}()
	wait := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not in 30 s: %s", what)
			}
		}
	}
	wait("the address of an Ingress that a Report names", func() bool {
		var i networkingv1.Ingress
		_, body := s.Do(http.MethodGet, kubetest.Path("networking.k8s.io/v1", "Ingress", "shop", "shop"), nil)
		if err := json.Unmarshal(body, &i); err != nil {
			t.Fatal(err)
		}
		return len(i.Status.LoadBalancer.Ingress) == 1 && i.Status.LoadBalancer.Ingress[0].IP == "203.0.113.10"
	})
	wait("the Report of the gateway, whose Envoy is missing", func() bool {
		code, body := s.Do(http.MethodGet, kubetest.Path("hythe.dev/v1alpha1", "Report", "", "gateway-n7"), nil)
		return code == http.StatusOK && strings.Contains(string(body), `"ready":false`)
	})
}
