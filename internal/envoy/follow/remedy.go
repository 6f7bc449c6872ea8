package follow

import (
	"fmt"
	"net/http"
	"strings"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/xds"
)

// refusedBackend is the Problem of the path that answers 503 for this request; all of the Ingress where none names it.
func (f *follower) refusedBackend(ingress model.ObjectRef, path string) string {
	host := f.want.host(f.domain)
	if host == nil || f.answer.Status != http.StatusServiceUnavailable {
		return f.want.problems(ingress, "")
	}
	var best *gateway.Route
	for i := range host.Routes {
		r := &host.Routes[i]
		takes := r.Path == path || r.Match == gateway.Prefix && strings.HasPrefix(path, r.Path) || r.Match == gateway.Regex && xds.Takes(*r, path)
		if takes && int(r.Status) == f.answer.Status && model.Ref("Ingress", r.Origin) == ingress && (best == nil || len(r.Path) > len(best.Path)) {
			best = r
		}
	}
	if best == nil {
		return f.want.problems(ingress, "")
	}
	for _, word := range []string{fmt.Sprintf("host %s, %s %s answers", host.Name, best.Match, best.Path), "requests for the default backend"} {
		if text := f.want.problems(ingress, word); strings.Contains(text, word) {
			return text
		}
	}
	return f.want.problems(ingress, "")
}
