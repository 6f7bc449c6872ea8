package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// podPorts are what each pod listens on: a targetPort moves between 8080 and 8082.
func podPorts() []int { return []int{8080, 8081, 8082} }

// lastPod is the number of the newest pod: no address is used twice.
var lastPod atomic.Int32

// A pod is a server with an address of its own.
type pod struct {
	address string
	http    *http.Server
	grpc    *grpc.Server
}

// startPod starts a pod that answers 200, with its address in the header Pod, or if that is wanted gRPC's health.
func startPod(isGRPC bool) (*pod, error) {
	n := lastPod.Add(1)
	p := &pod{address: fmt.Sprintf("10.244.%d.%d", n/250, n%250+1)}
	if isGRPC {
		p.grpc = grpc.NewServer()
		healthv1.RegisterHealthServer(p.grpc, health.NewServer())
	} else {
		p.http = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			out.Header().Set("Pod", p.address)
			_, _ = out.Write([]byte("ok\n"))
		})}
	}
	for _, port := range podPorts() {
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", p.address, port))
		if err != nil {
			return nil, fmt.Errorf("start pod: %w", err)
		}
		if isGRPC {
			go func() { _ = p.grpc.Serve(l) }()
		} else {
			go func() { _ = p.http.Serve(l) }()
		}
	}
	return p, nil
}

// stop is what a good server does at SIGTERM: no new connections, and each old one ends after its request.
func (p *pod) stop() error {
	if p.grpc != nil {
		timer := time.AfterFunc(5*time.Second, p.grpc.Stop)
		defer timer.Stop()
		p.grpc.GracefulStop()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop pod %s: %w", p.address, err), p.http.Close())
	}
	return nil
}
