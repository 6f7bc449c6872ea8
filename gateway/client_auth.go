package gateway

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// Authorities are what clients' certificates are verified by: a Secret that an Ingress names.
type Authorities struct {
	// Name is "namespace/name" of the Secret.
	Name string
	// Certificates and Revoked, lists of revoked certificates (RFC 5280 section 5), are PEM. Without lists nothing is revoked.
	Certificates, Revoked []byte
}

// crlKey is where ingress-nginx looks for lists of revoked certificates.
const crlKey = "ca.crl"

// A clientRule is who may come to a host.
type clientRule struct {
	by model.Key
	// asked is what the Ingress has, and auth the same with the expression as Envoy has it.
	asked, auth policy.ClientAuth
	// refused says why nobody can be let in.
	refused *refusal
}

// settleClients finds the hosts that are for clients with a certificate: as in ingress-nginx what one Ingress asks for holds
// for all of its hosts' paths, also those of other Ingresses. The oldest Ingress that asks decides.
func (x *index) settleClients(read secretReader, now time.Time) []model.Problem {
	x.clients = map[string]clientRule{}
	var problems []model.Problem
	for _, host := range slices.Sorted(maps.Keys(x.byHost)) {
		i := slices.IndexFunc(x.byHost[host], func(r *request) bool { return r.asked.AsksClients && r.owns(host, x) })
		if i < 0 || host == CatchAll {
			continue
		}
		r := x.byHost[host][i]
		rule := clientRule{by: r.key, asked: r.asked.Clients, auth: r.asked.Clients}
		fault := model.Contain(model.Ref("Ingress", r.key), "Host "+host+" is answered 503", func() {
			var notes []string
			rule.auth.Subject, notes, rule.refused = x.clientAuth(r, read, now)
			for _, note := range notes {
				problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), "ClientCertificates",
					"annotation %sauth-tls-secret: Secret %s %s", nginx.Prefix, r.asked.Clients.Secret, note))
			}
		})
		if fault != nil {
			rule.refused = &refusal{fault[0].Reason, fault[0].Message}
			problems = append(problems, fault...)
		}
		x.clients[host] = rule
	}
	return problems
}

// clientAuth reads the Secret that a request names, and returns the expression for subjects. Without them nobody is let in.
func (x *index) clientAuth(r *request, read secretReader, now time.Time) (subject string, notes []string, refused *refusal) {
	asked := r.asked.Clients
	refuse := func(reason, format string, args ...any) (string, []string, *refusal) {
		return "", nil, &refusal{reason, "Ingress " + r.key.String() + ", annotation " + nginx.Prefix + fmt.Sprintf(format, args...)}
	}
	if asked.Secret == "" {
		if r.refused != nil {
			return "", nil, r.refused
		}
		return refuse("SecretNotFound", "auth-tls-secret is missing; name a Secret with the certificates of clients' authorities in ca.crt")
	}
	namespace, name, _ := strings.Cut(asked.Secret, "/")
	key := model.Key{Namespace: namespace, Name: name}
	if no := r.mayRefer(v1alpha1.GrantSecret, key, "copy it into namespace "+r.key.Namespace); no != nil {
		return refuse(no.reason, "auth-tls-secret: %s", no.message)
	}
	_, _ = read(key) // remembers that the Secret was looked for
	secret := x.snapshot.Secrets.Get(key)
	if secret == nil {
		return refuse("SecretNotFound", "auth-tls-secret: Secret %s does not exist; or it does and is not read: its type must be %s (tls.crt and tls.key may be empty), or the gateway needs the flag --opaque-secrets",
			asked.Secret, corev1.SecretTypeTLS)
	}
	authorities, notes, err := readClientAuthorities(secret, now)
	if err != nil {
		return refuse("SecretInvalid", "auth-tls-secret: Secret %s %v", asked.Secret, err)
	}
	if asked.Subject != "" {
		if subject, err = subjectPattern(asked.Subject); err != nil {
			return refuse(nginx.Invalid, "auth-tls-match-cn %v", err)
		}
	}
	if x.authorities == nil {
		x.authorities = map[string]Authorities{}
	}
	authorities.Name = asked.Secret
	x.authorities[asked.Secret] = authorities
	return subject, notes, nil
}

// closed says why a path of a host must not be served: its Ingress is refused, or clients' certificates are asked for
// and cannot be verified as its Ingress wants it.
func (x *index) closed(host string, r *request) *refusal {
	if r.refused != nil {
		return r.refused
	}
	rule, ok := x.clients[host]
	switch {
	case ok && rule.refused != nil:
		return rule.refused
	case !r.asked.AsksClients || ok && rule.asked == r.asked.Clients:
		return nil
	case ok:
		return &refusal{"ClientCertificateConflict",
			fmt.Sprintf("Ingress %s, which comes first, asks by other auth-tls-* annotations for clients' certificates: let both have the same ones", rule.by)}
	}
	return &refusal{"ClientCertificatesNotPossible",
		"clients are asked for certificates by server name, so auth-tls-secret needs rules with a host"}
}

// clientsOf is the ClientAuth of a host, nil if it is for everybody.
func (x *index) clientsOf(host string) *policy.ClientAuth {
	rule, ok := x.clients[host]
	if !ok || rule.refused != nil {
		return nil
	}
	return &rule.auth
}

// readClientAuthorities reads ca.crt and ca.crl of a Secret. Notes say what clients will dislike.
func readClientAuthorities(secret *corev1.Secret, now time.Time) (out Authorities, notes []string, err error) {
	certs, err := readChain(secret.Data[corev1.ServiceAccountRootCAKey])
	if err != nil {
		return out, nil, errors.New("has no readable PEM certificates in ca.crt")
	}
	for _, cert := range certs {
		out.Certificates = append(out.Certificates, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
		if !now.IsZero() && now.After(cert.NotAfter) {
			notes = append(notes, fmt.Sprintf("has an authority in ca.crt, %s, that expired on %s: its clients are refused",
				quote(cert.Subject.String()), cert.NotAfter.UTC().Format(time.DateTime)))
		}
	}
	lists, err := readRevoked(secret.Data[crlKey])
	if err != nil {
		return out, nil, err
	}
	covered := map[*x509.Certificate]bool{}
	for _, list := range lists {
		i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return list.CheckSignatureFrom(c) == nil })
		if i < 0 {
			return out, nil, fmt.Errorf("has a list in ca.crl of %s, which no certificate in ca.crt has signed", quote(list.Issuer.String()))
		}
		covered[certs[i]] = true
		out.Revoked = append(out.Revoked, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list.Raw})...)
		if end := list.NextUpdate; !now.IsZero() && !end.IsZero() && now.After(end) {
			notes = append(notes, fmt.Sprintf("has a list in ca.crl of %s that was to be renewed until %s: its clients are refused",
				quote(list.Issuer.String()), end.UTC().Format(time.DateTime)))
		}
	}
	for _, cert := range certs {
		if len(lists) > 0 && !covered[cert] {
			notes = append(notes, fmt.Sprintf("has no list in ca.crl of %s: its clients are refused, since nobody knows whom it revoked", quote(cert.Subject.String())))
		}
	}
	return out, notes, nil
}

// readRevoked parses all lists of a PEM text.
func readRevoked(text []byte) ([]*x509.RevocationList, error) {
	var lists []*x509.RevocationList
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("has a list in ca.crl, number %d, that cannot be parsed", len(lists)+1)
		}
		lists = append(lists, list)
	}
	if len(strings.TrimSpace(string(text))) > 0 && len(lists) == 0 {
		return nil, errors.New("has no PEM list of revoked certificates (X509 CRL) in ca.crl")
	}
	return lists, nil
}

// subjectPattern is an expression for subjects in the form of RFC 2253 whose common name is all of what expression says. In
// that form commas and plus signs part attributes, and a backslash stands before those of values, which are the certificate's
// owner's to choose: so neither the way to the name nor a dot in the expression may go past one.
func subjectPattern(expression string) (string, error) {
	switch {
	case len(expression) > longestRegex:
		return "", fmt.Errorf("is longer than %d bytes", longestRegex)
	case strings.ContainsFunc(expression, func(r rune) bool { return r < ' ' || r >= 0x7f }):
		return "", errors.New("has a control character or one beyond ASCII; such names are compared as RFC 2253 writes them, with a backslash and two hexadecimal digits for each byte")
	}
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return "", fmt.Errorf("is no regular expression of RE2 (%w)", err)
	}
	if err := withinAttribute(parsed); err != nil {
		return "", err
	}
	plain, err := writeRegex(parsed)
	if err != nil {
		return "", err
	}
	const attribute = `(?:[^\\,+]|\\.)*`
	return `(?:` + attribute + `[,+])*CN=(?:` + plain + `)(?:[,+].*)?`, nil
}

// inAttribute are the characters of values that need no backslash, in pairs of first and last.
var inAttribute = []rune{' ', '*', '-', '[', ']', '~'}

// withinAttribute narrows what matches several characters to those of inAttribute. What is written out stays.
func withinAttribute(re *syntax.Regexp) error {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		re.Op, re.Rune = syntax.OpCharClass, slices.Clone(inAttribute)
	case syntax.OpCharClass:
		var kept []rune
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for j := 0; j < len(inAttribute); j += 2 {
				if low, high := max(re.Rune[i], inAttribute[j]), min(re.Rune[i+1], inAttribute[j+1]); low <= high {
					kept = append(kept, low, high)
				}
			}
		}
		if len(kept) == 0 {
			return errors.New("has a class of characters that no common name has")
		}
		re.Rune = kept
	case syntax.OpCapture:
		re.Name = ""
	}
	for _, sub := range re.Sub {
		if err := withinAttribute(sub); err != nil {
			return err
		}
	}
	return nil
}
