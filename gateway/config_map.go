package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/internal/model"
)

// settleHeaders reads the ConfigMaps that Ingresses name: headers of answers, and of requests to auth servers. Where one cannot
// be read the paths are closed, as in ingress-nginx: a header may be what protects.
func (x *index) settleHeaders(requests []*request) []model.Problem {
	var problems []model.Problem
	for _, r := range requests {
		if r.refused != nil || r.asked.Headers == "" && r.asked.AuthHeaders == "" {
			continue
		}
		fault := model.Contain(model.Ref("Ingress", r.key), "Its paths answer 503", func() { x.settleHeadersOf(r) })
		if fault != nil {
			r.refuse(fault[0].Reason, fault[0].Message)
		}
		problems = append(problems, fault...)
	}
	return problems
}

func (x *index) settleHeadersOf(r *request) {
	if r.asked.Headers != "" {
		data, refused := x.configMap(r, "custom-headers", r.asked.Headers)
		if refused != nil {
			r.refused = refused
			return
		}
		own := r.asked.Route // routes share it: it is made anew
		own.ResponseHeaders = slices.Clone(own.ResponseHeaders)
		for _, name := range slices.Sorted(maps.Keys(data)) {
			header, err := nginx.AnswerHeader(name, data[name])
			if err != nil {
				r.refuse("InvalidConfigMap", headersText("custom-headers", r.asked.Headers, err))
				return
			}
			own.ResponseHeaders = append(own.ResponseHeaders, header)
		}
		r.asked.Route, r.policy = own, &own
	}
	if r.asked.AuthHeaders == "" || !r.asked.Auth.Asks() {
		return
	}
	data, refused := x.configMap(r, "auth-proxy-set-headers", r.asked.AuthHeaders)
	if refused != nil {
		r.refused = refused
		return
	}
	headers := slices.Clone(r.asked.Auth.Headers)
	for _, name := range slices.Sorted(maps.Keys(data)) {
		header, err := nginx.AskHeader(name, data[name])
		if err != nil {
			r.refuse("InvalidConfigMap", headersText("auth-proxy-set-headers", r.asked.AuthHeaders, err))
			return
		}
		headers = append(headers, header)
	}
	r.asked.Auth.Headers = headers
}

func headersText(annotation, name string, err error) string {
	return fmt.Sprintf("annotation %s%s: ConfigMap %s %v", nginx.Prefix, annotation, shorten(name), err)
}

// noteConfigMap remembers that a ConfigMap was looked for.
func (x *index) noteConfigMap(key model.Key, m *corev1.ConfigMap) {
	if x.configMaps == nil {
		x.configMaps = map[model.Key]*corev1.ConfigMap{}
	}
	x.configMaps[key] = m
}

// configMap finds a ConfigMap that a request may refer to.
func (x *index) configMap(r *request, annotation, name string) (map[string]string, *refusal) {
	key := model.Key{Namespace: r.key.Namespace, Name: name}
	if namespace, rest, ok := strings.Cut(name, "/"); ok {
		key = model.Key{Namespace: namespace, Name: rest}
	}
	if no := r.mayRefer(v1alpha1.GrantConfigMap, key, "copy it into namespace "+r.key.Namespace); no != nil {
		return nil, &refusal{no.reason, "annotation " + nginx.Prefix + annotation + ": " + no.message}
	}
	m := x.snapshot.ConfigMaps.Get(key)
	x.noteConfigMap(key, m)
	if m == nil {
		return nil, &refusal{"ConfigMapNotFound", fmt.Sprintf("annotation %s%s: ConfigMap %s does not exist, or has no line that can be a header; or ConfigMaps are not read: the gateway needs the flag --config-maps",
			nginx.Prefix, annotation, shorten(key.String()))}
	}
	return m.Data, nil
}
