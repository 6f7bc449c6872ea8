package gateway

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/internal/model"
)

// A classConfig is what a GatewayConfig says to the Ingresses of a class. The zero value says nothing.
type classConfig struct {
	grants      grants
	defaults    map[string]string // annotations without prefix
	observe     v1alpha1.Observe
	listeners   v1alpha1.Listeners
	compression *v1alpha1.Compression
	pods        v1alpha1.PodDefaults
}

// configs reads the GatewayConfigs that classes of Hythe's name, by class. One that is absent or cannot be read costs what is
// unreadable in it, but a protection: its Ingresses answer 503 then.
func (c *classes) readConfigs(objects map[string]*v1alpha1.GatewayConfig) {
	c.configs = map[string]classConfig{}
	read := map[string]classConfig{}
	for _, name := range slices.Sorted(maps.Keys(c.objects)) {
		class := c.objects[name]
		c.faults = append(c.faults, model.Contain(model.ObjectRef{Kind: "IngressClass", Name: name}, "Its parameters are left out", func() {
			if class == nil || class.Spec.Parameters == nil || c.foreign(name) != "" {
				return
			}
			if problem := parametersFault(class, objects); problem != nil {
				c.faults = append(c.faults, *problem)
				return
			}
			config := class.Spec.Parameters.Name
			if _, ok := read[config]; !ok {
				var problems []model.Problem
				read[config], problems = readConfig(objects[config])
				c.faults = append(c.faults, problems...)
			}
			c.configs[name] = read[config]
		})...)
	}
}

// parametersFault says what is wrong with the parameters of a class.
func parametersFault(class *networkingv1.IngressClass, objects map[string]*v1alpha1.GatewayConfig) *model.Problem {
	p := class.Spec.Parameters
	group := ""
	if p.APIGroup != nil {
		group = *p.APIGroup
	}
	problem := func(reason, format string, args ...any) *model.Problem {
		out := classProblem(class, reason, "spec.parameters "+format, args...)
		return &out
	}
	switch {
	case group != v1alpha1.Group || p.Kind != "GatewayConfig":
		return problem("ParametersInvalid", "name %s %s of group %q; it must be a GatewayConfig of group %s; the defaults hold",
			shorten(p.Kind), shorten(p.Name), group, v1alpha1.Group)
	case p.Namespace != nil || p.Scope != nil && *p.Scope != networkingv1.IngressClassParametersReferenceScopeCluster:
		return problem("ParametersInvalid", "have a namespace, and a GatewayConfig has none; set scope to Cluster and take namespace away; the defaults hold")
	case objects[p.Name] == nil:
		return problem("ParametersNotFound", "name GatewayConfig %s, which does not exist; create it; the defaults hold, and nothing is granted", shorten(p.Name))
	}
	return nil
}

// readConfig reads one GatewayConfig.
func readConfig(o *v1alpha1.GatewayConfig) (classConfig, []model.Problem) {
	out := classConfig{defaults: defaultAnnotations(o.Spec.Defaults), observe: o.Spec.Observe, listeners: o.Spec.Listeners, compression: o.Spec.Compression, pods: o.Spec.Pods}
	out.grants = grants{list: o.Spec.Grants, from: o.Name}
	ref := model.ObjectRef{Kind: "GatewayConfig", Name: o.Name}
	var problems []model.Problem
	full := map[string]string{}
	for key, value := range out.defaults {
		full[nginx.Prefix+key] = value
	}
	_, notes := nginx.Read(full)
	for _, n := range notes {
		if n.Closed {
			problems = append(problems, model.Problemf(ref, "InvalidDefault", "spec.defaults: %s; Ingresses without the annotation answer 503", n.Message))
			continue
		}
		delete(out.defaults, strings.TrimPrefix(n.Annotation, nginx.Prefix))
		problems = append(problems, model.Problemf(ref, "InvalidDefault", "spec.defaults: %s; it has no effect", cmp.Or(n.Message, n.Annotation)))
	}
	for i, g := range o.Spec.Grants {
		for _, to := range g.To {
			if fault := grantFault(to); fault != "" {
				problems = append(problems, model.Problemf(ref, "InvalidGrant", "spec.grants[%d]: %s; it grants nothing", i, fault))
			}
		}
	}
	return out, problems
}

func grantFault(to v1alpha1.GrantTo) string {
	_, isURL := urlOrigin(to.Name)
	switch to.Kind {
	case v1alpha1.GrantURL:
		if !isURL {
			return "URL " + quote(to.Name) + " must be scheme and host alone, as https://login.example.com"
		}
	case v1alpha1.GrantSecret, v1alpha1.GrantService, v1alpha1.GrantConfigMap, v1alpha1.GrantHost:
		if to.Namespace == "" {
			return to.Kind + " " + quote(to.Name) + " has no namespace"
		}
	default:
		return "kind " + quote(to.Kind) + " is none of Secret, Service, ConfigMap, Host and URL"
	}
	return ""
}

// defaultAnnotations are the annotations that would say the same.
func defaultAnnotations(d v1alpha1.GatewayDefaults) map[string]string {
	out := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			out[key] = value
		}
	}
	number := func(n int32) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(int(n))
	}
	boolean := func(v *bool) string {
		if v == nil {
			return ""
		}
		return strconv.FormatBool(*v)
	}
	set("proxy-body-size", d.MaxBody)
	set("proxy-read-timeout", number(d.Idle))
	set("proxy-connect-timeout", number(d.Connect))
	set("ssl-redirect", boolean(d.RedirectHTTPS))
	if d.ForceRedirectHTTPS {
		set("force-ssl-redirect", "true")
	}
	set("whitelist-source-range", strings.Join(d.Allow, ","))
	set("denylist-source-range", strings.Join(d.Deny, ","))
	set("proxy-next-upstream", d.Retry)
	if d.Tries != nil {
		set("proxy-next-upstream-tries", strconv.Itoa(int(*d.Tries)))
	}
	set("load-balance", d.Balance)
	set("enable-access-log", boolean(d.AccessLog))
	var statuses []string
	for _, s := range d.ErrorStatuses {
		statuses = append(statuses, number(s))
	}
	set("custom-http-errors", strings.Join(statuses, ","))
	return out
}

// instead are annotations that take the place of a default besides the one of its own name.
var instead = map[string][]string{
	"proxy-read-timeout":     {"proxy-send-timeout"},
	"whitelist-source-range": {"allowlist-source-range"},
	"load-balance":           {"upstream-hash-by"},
}

// under puts the defaults under the annotations of an Ingress: what it has itself holds. A canary's are the other Ingress's.
func (c classConfig) under(annotations map[string]string) map[string]string {
	if len(c.defaults) == 0 || strings.EqualFold(strings.TrimSpace(annotations[nginx.Prefix+"canary"]), "true") {
		return annotations
	}
	has := func(key string) bool {
		_, newer := annotations[nginx.Prefix+key]
		_, older := annotations[strings.TrimPrefix(nginx.Prefix, "nginx.")+key]
		return newer || older
	}
	out := map[string]string{}
	for key, value := range c.defaults {
		if key == "custom-http-errors" && !has("default-backend") {
			continue // nobody would answer
		}
		if !has(key) && !slices.ContainsFunc(instead[key], has) {
			out[nginx.Prefix+key] = value
		}
	}
	maps.Copy(out, annotations)
	return out
}

// configOf is what holds for Ingresses that name a class.
func (c *classes) configOf(class string) classConfig {
	if class == "" && len(c.defaults) > 0 {
		class = c.defaults[0].Name
	}
	return c.configs[class]
}

// whole is what holds for the whole gateway: what the default class has, else the first class by name that has a GatewayConfig.
func (c *classes) whole() classConfig {
	if len(c.defaults) > 0 {
		if config, ok := c.configs[c.defaults[0].Name]; ok {
			return config
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.configs)) {
		return c.configs[name]
	}
	return classConfig{}
}
