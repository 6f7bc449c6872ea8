package xds

import (
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

const (
	// healthTimeout is how long an endpoint has to answer a health check.
	healthTimeout = 2 * time.Second
	// failures are health checks in a row after which an endpoint gets nothing.
	failures = 2
	// slowest is the share in percent of its weight with which an endpoint starts.
	slowest = 10
)

// treatPods makes a cluster treat its endpoints as a Service asks for. It is no part of the cluster's name: a cluster that is changed
// serves as before until Envoy has made the first checks.
func treatPods(out *clusterv3.Cluster, c gateway.Backend) {
	limits := out.GetCircuitBreakers().GetThresholds()[0]
	if n := c.Pods.MaxConnections; n != 0 {
		limits.MaxConnections = wrapperspb.UInt32(n)
	}
	if n := c.Pods.MaxRequests; n != 0 {
		limits.MaxRequests = wrapperspb.UInt32(n)
	}
	if n := c.Pods.EjectAfter; n != 0 {
		out.OutlierDetection.Consecutive_5Xx = wrapperspb.UInt32(n)
		out.OutlierDetection.EnforcingConsecutive_5Xx = wrapperspb.UInt32(100)
	}
	if c.Pods.SlowStart != 0 {
		startSlowly(out, c.Pods.SlowStart)
	}
	if c.Pods.HealthCheck.Kind != policy.NoHealthCheck && c.Stream != policy.Datagrams {
		checkHealth(out, c)
	}
}

// startSlowly is for the two ways to choose among endpoints that know weights.
func startSlowly(out *clusterv3.Cluster, window time.Duration) {
	slow := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: durationpb.New(window), MinWeightPercent: &typev3.Percent{Value: slowest}}
	switch out.GetLbPolicy() {
	case clusterv3.Cluster_LEAST_REQUEST:
		out.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}}
	case clusterv3.Cluster_ROUND_ROBIN:
		out.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
	}
}

// checkHealth asks the endpoints themselves. If none passes, Envoy sends requests to all: it is rather the check that is wrong.
func checkHealth(out *clusterv3.Cluster, c gateway.Backend) {
	interval := durationpb.New(c.Pods.HealthCheck.Interval)
	check := &corev3.HealthCheck{
		Timeout: durationpb.New(healthTimeout), Interval: interval, IntervalJitterPercent: 10,
		NoTrafficInterval: interval, UnhealthyThreshold: wrapperspb.UInt32(failures), HealthyThreshold: wrapperspb.UInt32(1),
	}
	switch c.Pods.HealthCheck.Kind {
	case policy.HealthHTTP:
		http := &corev3.HealthCheck_HttpHealthCheck{Host: serviceHost(c.Endpoints), Path: c.Pods.HealthCheck.Path}
		if c.Protocol.HTTP2() {
			http.CodecClientType = typev3.CodecClientType_HTTP2
		}
		check.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: http}
	case policy.HealthGRPC:
		check.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{Authority: serviceHost(c.Endpoints)}}
	default:
		check.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	}
	out.HealthChecks = []*corev3.HealthCheck{check}
	out.IgnoreHealthOnHostRemoval = true // else Envoy keeps what Kubernetes took away until it fails
}

// serviceHost is the name of a Service in its cluster, from "shop/web:http".
func serviceHost(endpoints string) string {
	key, _, _ := strings.Cut(endpoints, ":")
	namespace, name, _ := strings.Cut(key, "/")
	return name + "." + namespace
}
