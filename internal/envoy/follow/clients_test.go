package follow

import (
	"strings"
	"testing"

	"hythe.dev/hythe/internal/golden"
)

// A client with a certificate comes further than one without, if it comes by the host's own connection and has the right name.
// What Envoy does is asked in conformance/nginx.
func TestFollowClientsWithCertificates(t *testing.T) {
	r := newRig(t)
	golden.Archives(t, "../../../gateway/testdata/client-auth.txtar", func(t *testing.T, archive *golden.Archive) {
		want := r.set(t, build(t, archive))
		have := r.read(t)
		for _, c := range []struct {
			request Request
			status  int
			remedy  string
		}{
			{Request{Scheme: "https", Host: "a.example.com"}, 400, "shop/ca"},
			{Request{Scheme: "https", Host: "a.example.com", Subject: "CN=x"}, 200, ""},
			{Request{Scheme: "https", Host: "a.example.com", Subject: "CN=x", ServerName: "open.example.com"}, 421, "connection of its own"},
			{Request{Scheme: "http", Host: "a.example.com", Subject: "CN=x"}, 308, ""},
			{Request{Scheme: "http", Host: "a.other.test", Subject: "CN=ann"}, 403, "shop/ca"},
			{Request{Scheme: "https", Host: "a.other.test"}, 403, "shop/ca"},
			{Request{Scheme: "https", Host: "a.other.test", Subject: "O=x,CN=ann,C=y"}, 200, ""},
			{Request{Scheme: "https", Host: "a.other.test", Subject: "CN=bxb"}, 200, ""},
			{Request{Scheme: "https", Host: "a.other.test", Subject: "CN=anna"}, 403, "shop/ca"},
			{Request{Scheme: "https", Host: "a.other.test", Subject: `O=x\,CN=ann`}, 403, "shop/ca"},
			{Request{Scheme: "https", Host: "a.other.test", Headers: map[string]string{"ssl-client-subject-dn": "CN=ann"}}, 403, "shop/ca"},
			{Request{Scheme: "https", Host: "open.example.com"}, 200, ""},
		} {
			c.request.Path = "/"
			a := Follow(have, want, c.request)
			last := a.Hops[len(a.Hops)-1]
			if a.Status == 503 && last.Part == "endpoints" {
				a.Status = 200 // the hosts of another namespace have no endpoints
			}
			if a.Status != c.status || !strings.Contains(last.Remedy, c.remedy) {
				t.Errorf("%+v: %d, %q; want %d, %q", c.request, a.Status, last.Remedy, c.status, c.remedy)
			}
		}
	})
}
