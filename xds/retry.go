package xds

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
)

// retries are a route with its policy of trying again. Where that is for methods which may be repeated only, a route for
// the others goes before: what never reached a pod is tried again for them, too.
func (b *builder) retries(r gateway.Route, out *routev3.Route) []*routev3.Route {
	if r.Policy == nil || r.Policy.Retry.String() == "" {
		return []*routev3.Route{out}
	}
	retry := r.Policy.Retry
	if !retry.Answered() || retry.Unsafe {
		out.GetRoute().RetryPolicy = b.retry(retry)
		return []*routev3.Route{out}
	}
	once := proto.CloneOf(out)
	headerIs(":method", fullMatch("POST|PATCH|LOCK"))(once.Match)
	once.GetRoute().RetryPolicy = b.retry(policy.Retry{Tries: retry.Tries})
	out = proto.CloneOf(out)
	out.GetRoute().RetryPolicy = b.retry(retry)
	return []*routev3.Route{once, out}
}

// retry is the policy of all hosts, with what a route wants otherwise.
func (b *builder) retry(r policy.Retry) *routev3.RetryPolicy {
	out := b.retryPolicy()
	if r.Off || r.Tries == 1 {
		return &routev3.RetryPolicy{NumRetries: wrapperspb.UInt32(0)}
	}
	if r.Tries != 0 {
		out.NumRetries = wrapperspb.UInt32(r.Tries - 1)
	}
	on := []string{out.RetryOn}
	if r.Reset {
		on = append(on, "reset")
	}
	if len(r.Statuses) > 0 {
		on = append(on, "retriable-status-codes")
		out.RetriableStatusCodes = r.Statuses
	}
	out.RetryOn = strings.Join(on, ",")
	return out
}
