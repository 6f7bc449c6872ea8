package dump

import (
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		status *adminv3.HostHealthStatus
		good   bool
		word   string
	}{
		{&adminv3.HostHealthStatus{EdsHealthStatus: corev3.HealthStatus_HEALTHY}, true, "HEALTHY"},
		{&adminv3.HostHealthStatus{}, true, "UNKNOWN"},
		{&adminv3.HostHealthStatus{EdsHealthStatus: corev3.HealthStatus_DRAINING}, false, "DRAINING"},
		{&adminv3.HostHealthStatus{EdsHealthStatus: corev3.HealthStatus_HEALTHY, FailedOutlierCheck: true}, false, "failed_outlier_check"},
		{&adminv3.HostHealthStatus{EdsHealthStatus: corev3.HealthStatus_UNHEALTHY, PendingDynamicRemoval: true}, false, "UNHEALTHY pending_dynamic_removal"},
	} {
		if good, word := health(c.status); good != c.good || word != c.word {
			t.Errorf("health of %s is %t %q, want %t %q", c.status, good, word, c.good, c.word)
		}
	}
}

func TestBreakers(t *testing.T) {
	c := &Config{Clusters: []Cluster{{Name: "shop/web:http"}, {Name: "shop/api:http"}}}
	c.addBreakers("cluster.shop/web_http.circuit_breakers.default.cx_open: 0\ncluster.shop/web_http.circuit_breakers.default.rq_open: 1\n" +
		"cluster.shop/none_http.circuit_breakers.default.rq_open: 1\ncluster.shop/api_http.circuit_breakers.high.rq_open: 1\n")
	if got := strings.Join(c.Clusters[0].Open, " "); got != "rq_open" || len(c.Clusters[1].Open) != 0 {
		t.Errorf("open are %q and %q", got, c.Clusters[1].Open)
	}
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"shop/web:http"}, `^(shop/web:http)$`},
		{[]string{"a.b", "c+d"}, `^(a\.b|c\+d)$`},
		{AllNames, "^.*$"},
		{make([]string, maxNames+1), "^.*$"},
	} {
		if got := pattern(c.names); got != c.want {
			t.Errorf("pattern of %d names is %s, want %s", len(c.names), got, c.want)
		}
	}
}

// FuzzAddConfigs feeds what no Envoy says: an error, never a panic.
func FuzzAddConfigs(f *testing.F) {
	f.Add(`{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.SecretsConfigDump.DynamicSecret","name":"a","secret":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret","tls_certificate":{"certificate_chain":{"inline_bytes":"LS0t"}}}}]}`)
	f.Add(`{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.RoutesConfigDump.DynamicRouteConfig"}]}`)
	f.Add(`{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener","active_state":{}}]}`)
	f.Add(`{"cluster_statuses":[{"name":"a","host_statuses":[{}]}]}`)
	f.Fuzz(func(_ *testing.T, page string) {
		c := &Config{Clusters: []Cluster{{Name: "a"}}}
		_ = c.addConfigs([]byte(page))
		_ = c.addHealth([]byte(page))
		c.addBreakers(page)
		c.sort()
	})
}
