package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// A Trust is what TLS connections to pods are made with: a Secret that an Ingress names for its backends.
type Trust struct {
	// Name is "namespace/name" of the Secret.
	Name string
	// Authorities are the certificates, PEM, by which pods' ones are verified; empty if no Backend verifies.
	Authorities []byte
	// Chain and Key, PEM, are shown to pods that ask for a certificate.
	Chain, Key []byte
}

// settleUpstreams is settleUpstream of each.
func (x *index) settleUpstreams(requests []*request, read secretReader) []model.Problem {
	var problems []model.Problem
	for _, r := range requests {
		var more []model.Problem
		fault := model.Contain(model.Ref("Ingress", r.key), "Its paths are answered 503", func() { more = x.settleUpstream(r, read) })
		if fault != nil {
			r.refuse(fault[0].Reason, fault[0].Message)
		}
		problems = append(problems, append(more, fault...)...)
	}
	return problems
}

// settleUpstream gives the Backends of a request the way in which they speak TLS to pods. A request whose pods are to be
// verified, and cannot be, is refused: what is meant for one that proves who it is goes to nobody else.
func (x *index) settleUpstream(r *request, read secretReader) []model.Problem {
	asked := r.asked.Upstream
	if asked == (policy.Upstream{}) {
		return nil
	}
	problem := func(reason, message string) []model.Problem {
		return []model.Problem{model.Problemf(model.Ref("Ingress", r.key), reason, "%s", message)}
	}
	if !r.asked.Backend.Protocol.TLS() {
		message := "the annotations proxy-ssl-* are for TLS to pods, which needs backend-protocol HTTPS or GRPCS"
		if asked.Verify {
			r.refuse("UpstreamNotVerified", message)
			return nil
		}
		return problem("UpstreamNotTLS", message+"; they have no effect")
	}
	if reason, message := x.trust(r, asked, read); reason != "" {
		r.refuse(reason, message)
		return nil
	}
	r.asked.Backend.Upstream = asked
	return nil
}

// trust keeps the Secret that a request names for its backends, and says why that is impossible.
func (x *index) trust(r *request, asked policy.Upstream, read secretReader) (reason, message string) {
	switch {
	case asked.Verify && asked.Secret == "":
		return "UpstreamNotVerified", "proxy-ssl-verify needs proxy-ssl-secret, a Secret with the certificates of pods' authorities in ca.crt"
	case asked.Verify && asked.Name == "":
		return "UpstreamNotVerified", "proxy-ssl-verify needs proxy-ssl-name, the name that pods' certificates are for"
	case asked.Secret == "":
		return "", ""
	}
	namespace, name, _ := strings.Cut(asked.Secret, "/")
	key := model.Key{Namespace: namespace, Name: name}
	if no := r.mayRefer(v1alpha1.GrantSecret, key, "copy it into namespace "+r.key.Namespace); no != nil {
		return no.reason, "annotation " + nginx.Prefix + "proxy-ssl-secret: " + no.message
	}
	pair, err := read(key)
	switch {
	case err != nil:
		return "SecretInvalid", fmt.Sprintf("Secret %s of proxy-ssl-secret %v", asked.Secret, err)
	case pair == nil:
		return "SecretNotFound", fmt.Sprintf("Secret %s of proxy-ssl-secret, of type kubernetes.io/tls, does not exist", asked.Secret)
	case asked.Verify && len(pair.authorities) == 0:
		return "SecretInvalid", fmt.Sprintf("Secret %s of proxy-ssl-secret has no readable PEM certificates in ca.crt, to verify pods by", asked.Secret)
	}
	if x.trusts == nil {
		x.trusts = map[string]Trust{}
	}
	x.trusts[asked.Secret] = Trust{Name: asked.Secret, Authorities: pair.authorities, Chain: pair.chain, Key: pair.key}
	return "", ""
}

// refuse makes all paths of the request answer 503, unless they do already.
func (r *request) refuse(reason, message string) {
	if r.refused == nil {
		r.refused = &refusal{reason, message}
	}
}

// usedTrusts are those that Backends refer to, sorted by name.
func (x *index) usedTrusts(backends []Backend) []Trust {
	used := map[string]bool{}
	for _, b := range backends {
		used[b.Upstream.Secret] = true
	}
	var out []Trust
	for _, name := range slices.Sorted(maps.Keys(x.trusts)) {
		if used[name] {
			out = append(out, x.trusts[name])
		}
	}
	return out
}
