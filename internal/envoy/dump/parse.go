package dump

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	_ "hythe.dev/hythe/xds" // the extensions that it configures must be known to be parsed
)

// lenient passes by fields that a newer Envoy has.
var lenient = protojson.UnmarshalOptions{DiscardUnknown: true}

// addConfigs adds a page of config_dump.
func (c *Config) addConfigs(page []byte) error {
	var d adminv3.ConfigDump
	if err := lenient.Unmarshal(page, &d); err != nil {
		return fmt.Errorf("parse config dump: %w", err)
	}
	var errs []error
	for _, packed := range d.GetConfigs() {
		m, err := packed.UnmarshalNew()
		if err == nil {
			err = c.addConfig(m)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *Config) addConfig(m proto.Message) error {
	switch m := m.(type) {
	case *adminv3.ListenersConfigDump_DynamicListener:
		return c.addListener(m)
	case *adminv3.RoutesConfigDump_DynamicRouteConfig:
		return c.addTable(m)
	case *adminv3.ClustersConfigDump_DynamicCluster:
		return c.addCluster(m)
	case *adminv3.SecretsConfigDump_DynamicSecret:
		return c.addCertificate(m)
	}
	return fmt.Errorf("parse config dump: %s was not asked for", m.ProtoReflect().Descriptor().FullName())
}

func (c *Config) addListener(m *adminv3.ListenersConfigDump_DynamicListener) error {
	l := Listener{Name: m.GetName(), Warming: m.GetWarmingState() != nil, Error: failure(m.GetErrorState())}
	body := new(listenerv3.Listener)
	state := m.GetActiveState()
	if state != nil {
		l.Version, l.Updated = state.GetVersionInfo(), state.GetLastUpdated().AsTime()
		if err := unpack(state.GetListener(), body); err != nil {
			return fmt.Errorf("parse listener %s: %w", m.GetName(), err)
		}
		l.Body, l.Address = body, socket(body.GetAddress())
	}
	c.Listeners = append(c.Listeners, l)
	return nil
}

func (c *Config) addTable(m *adminv3.RoutesConfigDump_DynamicRouteConfig) error {
	body := new(routev3.RouteConfiguration)
	if err := unpack(m.GetRouteConfig(), body); err != nil {
		return fmt.Errorf("parse route table: %w", err)
	}
	c.Tables = append(c.Tables, RouteTable{
		Name: body.GetName(), Version: m.GetVersionInfo(), Updated: m.GetLastUpdated().AsTime(),
		Hosts: body.GetVirtualHosts(), Error: failure(m.GetErrorState()),
	})
	return nil
}

func (c *Config) addCluster(m *adminv3.ClustersConfigDump_DynamicCluster) error {
	body := new(clusterv3.Cluster)
	if err := unpack(m.GetCluster(), body); err != nil {
		return fmt.Errorf("parse cluster: %w", err)
	}
	c.Clusters = append(c.Clusters, Cluster{
		Name: body.GetName(), Version: m.GetVersionInfo(), Updated: m.GetLastUpdated().AsTime(),
		Body: body, Error: failure(m.GetErrorState()),
	})
	return nil
}

func (c *Config) addCertificate(m *adminv3.SecretsConfigDump_DynamicSecret) error {
	body := new(tlsv3.Secret)
	if err := unpack(m.GetSecret(), body); err != nil {
		return fmt.Errorf("parse secret %s: %w", m.GetName(), err)
	}
	if body.GetValidationContext() != nil {
		return nil // what others' certificates are verified by
	}
	chain, err := parseChain(body.GetTlsCertificate().GetCertificateChain().GetInlineBytes())
	if err != nil {
		return fmt.Errorf("parse certificate of secret %s: %w", m.GetName(), err)
	}
	c.Certificates = append(c.Certificates, Certificate{
		Name: m.GetName(), Version: m.GetVersionInfo(), Updated: m.GetLastUpdated().AsTime(),
		Chain: chain, Warming: len(chain) == 0, Error: failure(m.GetErrorState()),
	})
	return nil
}

func parseChain(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// addHealth adds what the page clusters says of clusters.
func (c *Config) addHealth(page []byte) error {
	var d adminv3.Clusters
	if err := lenient.Unmarshal(page, &d); err != nil {
		return fmt.Errorf("parse health of clusters: %w", err)
	}
	for _, s := range d.GetClusterStatuses() {
		cluster := c.Cluster(s.GetName())
		if cluster == nil {
			continue // it came between two questions, or is the static one
		}
		for _, h := range s.GetHostStatuses() {
			cluster.Endpoints = append(cluster.Endpoints, endpoint(h))
		}
		slices.SortFunc(cluster.Endpoints, func(a, b Endpoint) int { return a.Address.Compare(b.Address) })
	}
	return nil
}

func endpoint(h *adminv3.HostStatus) Endpoint {
	e := Endpoint{Address: socket(h.GetAddress())}
	e.Healthy, e.Health = health(h.GetHealthStatus())
	for _, s := range h.GetStats() {
		switch s.GetName() {
		case "rq_total":
			e.Requests = s.GetValue()
		case "rq_error":
			e.Failed = s.GetValue()
		case "cx_connect_fail":
			e.ConnectFailures = s.GetValue()
		case "rq_active":
			e.Active = s.GetValue()
		}
	}
	return e
}

// health says whether Envoy sends requests to an endpoint, and why not in the names that the page has for it.
func health(s *adminv3.HostHealthStatus) (bool, string) {
	eds := s.GetEdsHealthStatus()
	healthy := eds == corev3.HealthStatus_HEALTHY || eds == corev3.HealthStatus_UNKNOWN || eds == corev3.HealthStatus_DEGRADED
	words := []string{eds.String()}
	if healthy {
		words = nil
	}
	for _, flag := range []struct {
		set  bool
		name string
	}{
		{s.GetFailedOutlierCheck(), "failed_outlier_check"},
		{s.GetFailedActiveHealthCheck(), "failed_active_health_check"},
		{s.GetPendingActiveHc(), "pending_active_hc"},
		{s.GetExcludedViaImmediateHcFail(), "excluded_via_immediate_hc_fail"},
		{s.GetPendingDynamicRemoval(), "pending_dynamic_removal"},
	} {
		if flag.set {
			words = append(words, flag.name)
			healthy = false
		}
	}
	if len(words) == 0 {
		words = []string{eds.String()}
	}
	return healthy, strings.Join(words, " ")
}

// breaker is a line of the page stats in text form.
var breaker = regexp.MustCompile(`(?m)^cluster\.(.+)\.circuit_breakers\.default\.([a-z_]+_open): (\d+)$`)

// addBreakers adds which circuit breakers are open. Envoy writes names in statistics with "_" for ":".
func (c *Config) addBreakers(page string) {
	byName := map[string]*Cluster{}
	for i := range c.Clusters {
		byName[statName(c.Clusters[i].Name)] = &c.Clusters[i]
	}
	for _, m := range breaker.FindAllStringSubmatch(page, -1) {
		if cluster := byName[m[1]]; cluster != nil && m[3] != "0" {
			cluster.Open = append(cluster.Open, m[2])
		}
	}
}

func statName(cluster string) string { return strings.ReplaceAll(cluster, ":", "_") }

// sort puts everything in the order of names.
func (c *Config) sort() {
	slices.SortFunc(c.Listeners, func(a, b Listener) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Tables, func(a, b RouteTable) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Clusters, func(a, b Cluster) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Certificates, func(a, b Certificate) int { return cmp.Compare(a.Name, b.Name) })
}

func failure(s *adminv3.UpdateFailureState) *Failure {
	if s == nil {
		return nil
	}
	return &Failure{Reason: s.GetDetails(), Version: s.GetVersionInfo(), At: s.GetLastUpdateAttempt().AsTime()}
}

// unpack is UnmarshalTo that takes an absent message for an empty one.
func unpack(packed *anypb.Any, into proto.Message) error {
	if packed == nil {
		return nil
	}
	return packed.UnmarshalTo(into)
}

// socket is the address, or the zero AddrPort for another kind.
func socket(a *corev3.Address) netip.AddrPort {
	s := a.GetSocketAddress()
	ip, err := netip.ParseAddr(s.GetAddress())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, uint16(s.GetPortValue()))
}
