package live

import (
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/xds"
)

// maxText is how much is kept of what a client can choose.
const maxText = 512

// read takes from an entry of the access log what is kept of it. It is false for one without a mark.
func read(e *accesslogv3.HTTPAccessLogEntry) (inspect.LiveAnswer, bool) {
	id := e.GetRequest().GetRequestHeaders()[strings.ToLower(xds.TraceHeader)]
	if !xds.ValidTrace(id) {
		return inspect.LiveAnswer{}, false
	}
	c := e.GetCommonProperties()
	path, _, _ := strings.Cut(e.GetRequest().GetPath(), "?")
	out := inspect.LiveAnswer{
		ID:                id,
		Received:          c.GetStartTime().AsTime(),
		UpstreamConnected: after(c.GetTimeToFirstUpstreamTxByte()),
		FirstByte:         after(c.GetTimeToFirstUpstreamRxByte()),
		Done:              after(c.GetTimeToLastDownstreamTxByte()),
		Status:            int(e.GetResponse().GetResponseCode().GetValue()),
		Method:            cut(e.GetRequest().GetRequestMethod().String()),
		Host:              cut(e.GetRequest().GetAuthority()),
		Path:              cut(path),
		Client:            address(c.GetDownstreamRemoteAddress()),
		Upstream:          address(c.GetUpstreamRemoteAddress()),
		Local:             address(c.GetUpstreamLocalAddress()),
		Listener:          address(c.GetDownstreamLocalAddress()),
		ServerName:        cut(c.GetTlsProperties().GetTlsSniHostname()),
		Cluster:           c.GetUpstreamCluster(),
		Route:             c.GetRouteName(),
		Chain:             c.GetCustomTags()[xds.TagChain],
		Flags:             strings.Trim(c.GetCustomTags()[xds.TagFlags], "-"),
		Details:           cut(e.GetResponse().GetResponseCodeDetails()),
		Failure:           cut(c.GetUpstreamTransportFailureReason()),
		Attempts:          int(c.GetUpstreamRequestAttemptCount()),
	}
	if t := c.GetTlsProperties(); t != nil {
		out.TLS = t.GetTlsVersion().String()
	}
	return out, true
}

// after is a time since the request came, -1 for one that never was.
func after(d *durationpb.Duration) time.Duration {
	if d == nil {
		return -1
	}
	return d.AsDuration()
}

// address is "ADDRESS:PORT", empty for another kind.
func address(a *corev3.Address) string {
	s := a.GetSocketAddress()
	ip, err := netip.ParseAddr(s.GetAddress())
	if err != nil {
		return ""
	}
	return netip.AddrPortFrom(ip, uint16(s.GetPortValue())).String()
}

func cut(s string) string { return s[:min(len(s), maxText)] }
