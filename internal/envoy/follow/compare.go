package follow

import (
	"fmt"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/xds"
	"hythe.dev/hythe/xds/server"
)

// compare says of a resource whether Envoy has it as the gateway wants it. same is asked only where both have it.
func (w Want) compare(kind xds.Kind, name string, have bool, updated time.Time, same func(*xds.Resource) bool) inspect.ReadBack {
	out := inspect.ReadBack{State: inspect.Outstanding}
	if have {
		out.Updated = updated
	}
	var wanted *xds.Resource
	if w.Resources != nil {
		wanted = w.Resources.Get(kind, name)
	}
	switch {
	case wanted == nil && have:
		out.State = inspect.Surplus
		out.Reason = "the gateway does not want it any more"
		return out
	case wanted == nil:
		out.State, out.Reason = inspect.Unread, "neither Envoy nor the gateway knows it"
		return out
	case have && same(wanted):
		out.State = inspect.InUse
		return out
	}
	if r := w.refusal(kind, name, wanted.Version); r != nil {
		out.State, out.Reason = inspect.Refused, strings.TrimSpace(r.Reason)
		return out
	}
	out.Reason = "Envoy has an earlier version"
	if !have {
		out.Reason = "Envoy does not have it"
	}
	for _, need := range wanted.Needs {
		for _, k := range []xds.Kind{xds.Cluster, xds.Endpoints, xds.Secret} {
			if r := w.refusal(k, need, ""); r != nil {
				out.Reason += fmt.Sprintf(", and waits for %s %s, which Envoy refused: %s", k, need, r.Reason)
			}
		}
	}
	return out
}

// refusal finds what Envoy said of a version of a resource; of any version if it is empty.
func (w Want) refusal(kind xds.Kind, name, version string) *server.Refusal {
	for i, r := range w.Refused {
		if r.Kind == kind && r.Name == name && (version == "" || r.Version == version) {
			return &w.Refused[i]
		}
	}
	return nil
}

// compareVersion is for what Envoy shows with the version that it was given.
func (w Want) compareVersion(kind xds.Kind, name, version string, updated time.Time) inspect.ReadBack {
	return w.compare(kind, name, version != "", updated, func(r *xds.Resource) bool { return r.Version == version })
}

// compareHost is for virtual hosts, of which Envoy shows no version: the content is compared.
func (w Want) compareHost(name string, have *routev3.VirtualHost, updated time.Time) inspect.ReadBack {
	return w.compare(xds.VirtualHost, name, have != nil, updated, func(r *xds.Resource) bool {
		var wanted routev3.VirtualHost
		return r.Body.UnmarshalTo(&wanted) == nil && proto.Equal(have, &wanted)
	})
}
