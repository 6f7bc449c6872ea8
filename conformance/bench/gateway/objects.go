package main

import (
	"context"
	"encoding/base64"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const namespace = "default"

// object is an object of the API.
func object(apiVersion, kind, name string, more map[string]any) *unstructured.Unstructured {
	o := map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name, "namespace": namespace}}
	for k, v := range more {
		if k == "annotations" || k == "labels" {
			o["metadata"].(map[string]any)[k] = v
			continue
		}
		o[k] = v
	}
	return &unstructured.Unstructured{Object: o}
}

// An ingress is what the benchmark says of an Ingress.
type ingress struct {
	name, host, service, port string
	secret                    string // of TLS; empty for none
	annotations               map[string]any
}

func (i ingress) object() *unstructured.Unstructured {
	backend := map[string]any{"service": map[string]any{"name": i.service, "port": map[string]any{"name": i.port}}}
	spec := map[string]any{
		"ingressClassName": "hythe",
		"rules": []any{map[string]any{"host": i.host, "http": map[string]any{
			"paths": []any{map[string]any{"path": "/", "pathType": "Prefix", "backend": backend}},
		}}},
	}
	if i.secret != "" {
		spec["tls"] = []any{map[string]any{"hosts": []any{i.host}, "secretName": i.secret}}
	}
	annotations := map[string]any{}
	for k, v := range i.annotations {
		annotations["nginx.ingress.kubernetes.io/"+k] = v
	}
	return object("networking.k8s.io/v1", "Ingress", i.name, map[string]any{"annotations": annotations, "spec": spec})
}

// A service has the ports http and alt.
type service struct {
	name   string
	number int // of the port http
	target int // of the port http, in the pods
}

func (s service) object() *unstructured.Unstructured {
	return object("v1", "Service", s.name, map[string]any{"spec": map[string]any{
		"selector": map[string]any{"app": s.name},
		"ports": []any{
			map[string]any{"name": "http", "port": int64(s.number), "targetPort": int64(s.target), "protocol": "TCP"},
			map[string]any{"name": "alt", "port": int64(81), "targetPort": int64(8081), "protocol": "TCP"},
		},
	}})
}

// An endpoint is one pod in an EndpointSlice.
type endpoint struct {
	address     string
	terminating bool
}

// slice is the EndpointSlice of a service.
func (s service) slice(endpoints []endpoint) *unstructured.Unstructured {
	var list []any
	for _, e := range endpoints {
		list = append(list, map[string]any{
			"addresses":  []any{e.address},
			"conditions": map[string]any{"ready": !e.terminating, "serving": true, "terminating": e.terminating},
		})
	}
	return object("discovery.k8s.io/v1", "EndpointSlice", s.name, map[string]any{
		"labels": map[string]any{"kubernetes.io/service-name": s.name}, "addressType": "IPv4", "endpoints": list,
		"ports": []any{
			map[string]any{"name": "http", "port": int64(s.target), "protocol": "TCP"},
			map[string]any{"name": "alt", "port": int64(8081), "protocol": "TCP"},
		},
	})
}

// secret is a TLS Secret with a new certificate for some hosts.
func (w *world) secret(name string, hosts ...string) (*unstructured.Unstructured, error) {
	chain, key, err := w.authority.issue(hosts...)
	if err != nil {
		return nil, err
	}
	return object("v1", "Secret", name, map[string]any{"type": "kubernetes.io/tls", "data": map[string]any{
		"tls.crt": base64.StdEncoding.EncodeToString(chain), "tls.key": base64.StdEncoding.EncodeToString(key),
	}}), nil
}

// apply writes objects one after the other.
func (w *world) apply(ctx context.Context, objects ...*unstructured.Unstructured) error {
	for _, o := range objects {
		if err := w.client.Apply(ctx, o); err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// remove deletes objects.
func (w *world) remove(ctx context.Context, objects ...*unstructured.Unstructured) error {
	for _, o := range objects {
		if err := w.client.Delete(ctx, o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName()); err != nil {
			return fmt.Errorf("delete %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}
