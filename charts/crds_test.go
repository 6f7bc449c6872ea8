package charts_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/kube/kubetest"
)

// TestDefinitions asks a real API server what it takes of Hythe's kinds, and what it says about the rest.
func TestDefinitions(t *testing.T) {
	s := kubetest.Start(t)
	s.InstallCRDs("hythe/crds")
	create := func(t *testing.T, object string) (code int, answer string) {
		t.Helper()
		var o struct{ APIVersion, Kind string }
		data, err := yaml.YAMLToJSON([]byte(object))
		if err == nil {
			err = json.Unmarshal(data, &o)
		}
		if err != nil {
			t.Fatal(err)
		}
		code, body := s.Do(http.MethodPost, kubetest.Path("hythe.dev/v1alpha1", o.Kind, "", "")+"?fieldValidation=Strict&dryRun=All", data)
		return code, string(body)
	}
	const head = "apiVersion: hythe.dev/v1alpha1\n"
	pool := func(addresses string) string {
		return head + "kind: AddressPool\nmetadata: {name: a}\nspec: {addresses: [" + addresses + "]}"
	}
	claim := func(name, spec string) string {
		return head + "kind: AddressClaim\nmetadata: {name: " + name + "}\nspec: {" + spec + "}"
	}
	config := func(spec string) string {
		return head + "kind: GatewayConfig\nmetadata: {name: a}\nspec: {" + spec + "}"
	}
	for name, object := range map[string]string{
		"address": pool("192.0.2.1"), "range": pool("192.0.2.1-192.0.2.9"), "range with blanks": pool("' 192.0.2.1 - 192.0.2.9 '"),
		"CIDR": pool("192.0.2.0/24"), "IPv6": pool("'2001:db8::1', '2001:db8::/64', '2001:db8::1-2001:db8::9'"),
		"settings":   head + "kind: AddressPool\nmetadata: {name: a}\nspec: {addresses: [192.0.2.1], autoAssign: false, priority: -3}",
		"claim":      claim("192.0.2.1", "address: 192.0.2.1, pool: a, services: [{namespace: a, name: b}], announce: [arp]"),
		"IPv6 claim": claim("2001-0db8-0000-0000-0000-0000-0000-0001", "address: '2001:db8::1', pool: a, services: [{namespace: a, name: b}]"),
		"defaults":   config("defaults: {maxBody: 8m, idleSeconds: 60, allow: [10.0.0.0/8, '2001:db8::1'], errorStatuses: [503]}"),
		"grants":     config("grants: [{from: ['*'], to: [{kind: Secret, namespace: a, name: b}, {kind: URL, name: 'https://a.test'}]}]"),
		"observe":    config("observe: {accessLog: {format: json, samplePerMille: 10}, tracing: {service: {namespace: a, name: b}, port: 4317, samplePerMille: 1}}"),
		"listeners":  config("listeners: {proxyProtocolFrom: [10.0.0.0/8], trustedProxies: ['2001:db8::1'], tcpServices: {'5432': 'db/postgres:psql::PROXY', '22': 'a/b:22'}, udpServices: {'53': 'a/b:dns'}, http3: {port: 8443}, grpcWeb: false}, pods: {ejectAfterErrors: 5, maxConnections: 1, maxRequests: 2, slowStartSeconds: 30}, compression: {algorithms: [br, gzip], types: [text/html], minBytes: 100}"),
		"report":     head + "kind: Report\nmetadata: {name: node-n1}\ncomponent: node\nnode: n1\nready: true\nproblems: [{kind: A, name: b, reason: C, message: d}]",
	} {
		t.Run("takes "+name, func(t *testing.T) {
			if code, answer := create(t, object); code != http.StatusCreated {
				t.Errorf("%d: %s", code, answer)
			}
		})
	}
	for name, c := range map[string]struct{ object, want string }{
		"pool without spec":     {head + "kind: AddressPool\nmetadata: {name: a}", "spec: Required value"},
		"pool without any":      {pool(""), "spec.addresses in body should have at least 1 items"},
		"no address":            {pool("edge"), "'edge' is no address, range FIRST-LAST or CIDR"},
		"octet":                 {pool("192.0.2.256"), "'192.0.2.256' is no address"},
		"prefix":                {pool("192.0.2.0/33"), "'192.0.2.0/33' is no address"},
		"half a range":          {pool("'192.0.2.1-'"), "is no address"},
		"range of three":        {pool("192.0.2.1-192.0.2.2-192.0.2.3"), "is no address"},
		"unknown field":         {head + "kind: AddressPool\nmetadata: {name: a}\nspec: {addresses: [192.0.2.1], autoassign: false}", `unknown field \"spec.autoassign\"`},
		"wrong type":            {head + "kind: AddressPool\nmetadata: {name: a}\nspec: {addresses: 192.0.2.1}", "must be of type array"},
		"large priority":        {head + "kind: AddressPool\nmetadata: {name: a}\nspec: {addresses: [192.0.2.1], priority: 3000000000}", "spec.priority"},
		"claim of another name": {claim("192.0.2.2", "address: 192.0.2.1, pool: a, services: [{namespace: a, name: b}]"), "the name must be the address"},
		"claim spelt oddly":     {claim("a", "address: '2001:DB8::1', pool: a, services: [{namespace: a, name: b}]"), "it must be an address in its canonical form"},
		"claim of nobody":       {claim("192.0.2.1", "address: 192.0.2.1, pool: a, services: []"), "spec.services in body should have at least 1 items"},
		"no size":               {config("defaults: {maxBody: 8mb}"), "spec.defaults.maxBody"},
		"no range":              {config("defaults: {allow: [10.0.0.0/99]}"), "'10.0.0.0/99' is no address or CIDR"},
		"no such default":       {config("defaults: {proxyBodySize: 8m}"), `unknown field \"spec.defaults.proxyBodySize\"`},
		"no log format":         {config("observe: {accessLog: {format: xml}}"), "supported values"},
		"grant without kind":    {config("grants: [{from: [a], to: [{namespace: a}]}]"), "kind: Required value"},
		"grant of all Secrets":  {config("grants: [{from: [a], to: [{kind: Secret}]}]"), "a URL needs a name and no namespace"},
		"grant of all URLs":     {config("grants: [{from: [a], to: [{kind: URL}]}]"), "a URL needs a name and no namespace"},
		"spans to no port":      {config("observe: {tracing: {service: {namespace: a, name: b}}}"), "service and port need each other"},
		"report of another":     {head + "kind: Report\nmetadata: {name: node-n2}\ncomponent: node\nnode: n1", "the name must be COMPONENT-NODE"},
		"report of a stranger":  {head + "kind: Report\nmetadata: {name: a-n1}\ncomponent: a\nnode: n1", "supported values"},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			if code, answer := create(t, c.object); code < 400 || code >= 500 || !strings.Contains(answer, c.want) {
				t.Errorf("want %q, got %d: %s", c.want, code, answer)
			}
		})
	}
	t.Run("refuses another address of a claim", func(t *testing.T) {
		s.Apply(claim("192.0.2.1", "address: 192.0.2.1, pool: a, services: [{namespace: a, name: b}]"))
		code, answer := s.Do(http.MethodPatch, kubetest.Path("hythe.dev/v1alpha1", "AddressClaim", "", "192.0.2.1"), []byte(`{"spec":{"address":"192.0.2.2"}}`))
		if code != http.StatusUnprocessableEntity || !strings.Contains(string(answer), "an address cannot be changed, delete the claim") {
			t.Errorf("%d: %s", code, answer)
		}
	})
	t.Run("columns", func(t *testing.T) { columns(t, s, claim) })
}

// columns are what kubectl get shows: the API server prints the first of several.
func columns(t *testing.T, s *kubetest.Server, claim func(name, spec string) string) {
	s.Apply(claim("192.0.2.7", "address: 192.0.2.7, pool: edge, services: [{namespace: a, name: b}, {namespace: c, name: d}]"))
	s.Apply("{apiVersion: hythe.dev/v1alpha1, kind: AddressPool, metadata: {name: edge}, spec: {addresses: [192.0.2.7, 192.0.2.8]}, status: {addresses: 2, claimed: 1}}")
	s.Apply("{apiVersion: hythe.dev/v1alpha1, kind: Report, metadata: {name: node-n1}, component: node, node: n1, ready: true, addresses: [192.0.2.7], problems: [{kind: A, name: b, reason: Some, message: d}, {kind: A, name: c, reason: Other, message: d}]}")
	client := s.Config()
	for path, want := range map[string]string{
		kubetest.Path("hythe.dev/v1alpha1", "AddressClaim", "", "192.0.2.7"): `["192.0.2.7","192.0.2.7","edge","a","b",`,
		kubetest.Path("hythe.dev/v1alpha1", "AddressPool", "", "edge"):       `["edge","[\"192.0.2.7\",\"192.0.2.8\"]",2,1,`,
		kubetest.Path("hythe.dev/v1alpha1", "Report", "", "node-n1"):         `["node-n1","node","n1",true,"[\"192.0.2.7\"]","Some",`,
	} {
		var table struct {
			Rows []struct{ Cells json.RawMessage }
		}
		body := asTable(t, client, "https://"+s.Addr()+path)
		if err := json.Unmarshal(body, &table); err != nil || len(table.Rows) != 1 || !strings.HasPrefix(string(table.Rows[0].Cells), want) {
			t.Errorf("%s (error %v): want %s, got %s", path, err, want, body)
		}
	}
}
