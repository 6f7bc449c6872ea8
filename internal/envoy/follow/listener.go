package follow

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"hythe.dev/hythe/internal/envoy/dump"
	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/xds"
)

// compareListener is for listeners. Where only filter chains change, Envoy changes the listener in place and goes on showing
// the version by which it first came: so the content is what counts.
func (w Want) compareListener(l *dump.Listener) inspect.ReadBack {
	return w.compare(xds.Listener, l.Name, l.Version != "", l.Updated, func(r *xds.Resource) bool {
		if r.Version == l.Version {
			return true
		}
		var wanted listenerv3.Listener
		return r.Body != nil && r.Body.UnmarshalTo(&wanted) == nil && proto.Equal(l.Body, &wanted)
	})
}
