package follow

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/xds"
)

// asksPassword says whether a route lets nobody in who names no user.
func (f *follower) asksPassword(r *routev3.Route) bool {
	if xds.RouteAsks(r) {
		return true
	}
	entry, ok := f.want.Config.Auth[xds.RouteEntry(r)]
	return ok && len(entry.Users) > 0 && (entry.Ask == nil || !entry.Any)
}

// tellAuth says who decides about the requests of a route. What that one says is not known here.
func (f *follower) tellAuth(r *routev3.Route, h *asked.Hop) {
	if entry := f.want.Config.Auth[xds.RouteEntry(r)]; entry.Ask != nil {
		h.Text += "; if " + entry.Ask.URL() + " lets the client in"
	}
}
