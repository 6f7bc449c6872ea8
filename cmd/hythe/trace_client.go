package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/trace/road"
	"hythe.dev/hythe/node/kernel/link"
)

// client is where a marked request is sent from: this machine or, in a lab, one of its machines or pods.
func (f *finder) client(from string) (road.Client, error) {
	l, ok := f.chosenLab()
	if !ok {
		if from != "" {
			return road.Client{}, errors.New("--live sends from this machine: run hythe trace --live where the request is to come from, and leave --from out")
		}
		return road.Client{Where: "this machine", Dial: (&net.Dialer{}).DialContext, NextHop: nextHop("")}, nil
	}
	client := road.Client{Where: from}
	namespace := l.Namespace(topology.Client)
	switch podNamespace, pod, isPod := strings.Cut(from, "/"); {
	case isPod:
		namespace = topology.PodNamespaceName(l.Name, podNamespace, pod)
	case from == "" || from == topology.ClientAddress().String():
		client.Where = "client"
	default:
		if _, err := netip.ParseAddr(from); err == nil {
			return road.Client{}, fmt.Errorf("--live --from %s: name the lab's node, or its pod as NAMESPACE/NAME", from)
		}
		namespace = l.Namespace(from)
	}
	if pem, err := os.ReadFile(l.CA()); err == nil {
		client.Roots = x509.NewCertPool()
		client.Roots.AppendCertsFromPEM(pem)
	}
	client.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return topology.Dial(ctx, namespace, network, address)
	}
	client.NextHop = nextHop(namespace)
	return client, nil
}

// chosenLab is the lab whose processes are asked; ok is false if they are those of a cluster.
func (f *finder) chosenLab() (_ lab.Lab, ok bool) {
	if f.asksCluster() {
		return lab.Lab{}, false
	}
	name, dir := f.lab.name, f.lab.dir
	if !f.chosen() {
		if len(f.admin) > 0 || f.getenv("HYTHE_ADMIN") != "" {
			return lab.Lab{}, false
		}
		name, dir = f.getenv("HYTHE_LAB"), ""
		if _, guessed, err := f.addresses(); guessed || err != nil {
			return lab.Lab{}, false
		}
	}
	if name == "" && dir != "" { // the folder knows the name, which is part of its namespaces' names
		l, err := lab.At(dir)
		return l, err == nil
	}
	l, err := lab.New(name, dir)
	return l, err == nil
}

// nextHop tells whom packets of a network namespace are handed to.
func nextHop(namespace string) func(netip.Addr) string {
	return func(to netip.Addr) string {
		var found link.FoundRoute
		err := topology.Do(namespace, func() (err error) {
			found, err = link.ReadRoute(to, netip.Addr{})
			return err
		})
		switch {
		case err != nil || found.Device.Name == "":
			return ""
		case found.Neighbour == nil:
			return found.Device.Name
		}
		return fmt.Sprintf("%s %s on %s", found.Neighbour.Addr, strings.TrimSpace(found.Neighbour.MAC), found.Device.Name)
	}
}
