package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/kube/forward"
)

// chartGatewayService is the gateways' Service of charts/hythe, beside the pods.
const chartGatewayService = "hythe-gateway"

// A question through an API server passes two machines more than one to this machine.
const (
	clusterTimeout = 20 * time.Second // for who is there
	sayAfter       = time.Second      // when a person is told what takes so long
)

// asksCluster says whether the processes are those of a cluster: it is named, or kubectl would find one and neither an
// address nor a lab is named, and no lab runs.
func (f *finder) asksCluster() bool {
	if f.inCluster() {
		return true
	}
	_, guessed, err := f.addresses()
	return err == nil && guessed && f.kubectl()
}

// openCluster finds the pods of Hythe, and asks who is in them, through the API server.
func (f *finder) openCluster(ctx context.Context) (*inspect.Cluster, error) {
	config, err := forward.Config(f.kubeconfig, f.context)
	if err != nil {
		return nil, fmt.Errorf("%w: name one by --kubeconfig FILE, and --context", err)
	}
	api, err := forward.Open(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	defer f.sayLater("Asking API server %s for the pods of Hythe in namespace %s ...", api.Host(), f.namespace)()
	pods, err := api.Pods(ctx, f.namespace)
	if err != nil {
		return nil, err
	}
	places, err := podPlaces(pods, api.Dialer)
	if err != nil {
		return nil, err
	}
	return inspect.OpenPlaces(ctx, places)
}

// podPlaces are the admin pages of pods that have some: an Envoy is read by its gateway.
func podPlaces(pods []forward.Pod, dialer func(forward.Pod) (*forward.Dialer, error)) ([]inspect.Place, error) {
	var places []inspect.Place
	var errs []error
	for _, pod := range pods {
		admin, ok := map[string]string{"controller": controllerAdmin, "gateway": gatewayAdmin, "node": nodeAdmin}[pod.Component]
		if !ok {
			continue
		}
		d, err := dialer(pod)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		port := netip.MustParseAddrPort(admin).Port()
		places = append(places, inspect.Place{Name: "pod " + pod.String(), Dial: func(ctx context.Context) (net.Conn, error) {
			return d.Dial(ctx, port)
		}})
	}
	return places, errors.Join(errs...)
}

// sayLater tells a person at a terminal what takes long, unless the returned function is called before.
func (f *finder) sayLater(format string, args ...any) (stop func()) {
	if _, plain := colours(f.stderr); plain == "" {
		return func() {}
	}
	timer := time.AfterFunc(sayAfter, func() { fmt.Fprintf(f.stderr, format+"\n", args...) })
	return func() { timer.Stop() }
}
