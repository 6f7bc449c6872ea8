package gateway

import (
	"fmt"
	"slices"
	"strings"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// certificates says which key pair each server name gets.
type certificates struct {
	settings Settings
	read     secretReader
	// byContent holds each different key pair once, however many Secrets hold it, so that one certificate copied
	// to many namespaces is one filter chain, and clients that coalesce connections meet no 421.
	byContent map[string]*Certificate
	byName    map[string]*Certificate // by server name
	owners    map[string]tlsOwner     // by server name
	fallback  Certificate
	pinned    []string // hosts that get fallback although a wildcard covers them
	// shown are the Names of those that a ClientTLS shows.
	shown map[string]bool
	// owner returns the namespace that alone may give a name its certificate; empty if all may.
	owner func(name string) string
}

// A tlsOwner says who gave a server name its certificate, and which namespaces asked for just that one.
type tlsOwner struct {
	ingress, secret model.Key
	namespaces      map[string]bool
}

// buildCertificates reads the Secrets that requests name, oldest request first: the first valid one of a server
// name stands. A name whose Secret is missing or invalid keeps the default certificate; it is never left to
// plain http, nor given to another tenant.
func buildCertificates(
	settings Settings, requests []*request, read secretReader, owner func(string) string,
) (*certificates, []model.Problem) {
	c := &certificates{
		settings:  settings,
		read:      read,
		owner:     owner,
		byContent: map[string]*Certificate{},
		byName:    map[string]*Certificate{},
		owners:    map[string]tlsOwner{},
	}
	problems := c.readDefault()
	for _, r := range requests {
		for i := range r.tls {
			fault := model.Contain(model.Ref("Ingress", r.key), "A TLS entry of it is left out", func() {
				problems = append(problems, c.add(r, &r.tls[i])...)
			})
			problems = append(problems, fault...)
		}
	}
	for _, r := range requests {
		for i := range r.tls {
			problems = append(problems, c.addAliases(r, &r.tls[i])...)
		}
	}
	return c, problems
}

// A secretReader returns the key pair of a Secret, nil without an error if there is no such Secret.
type secretReader func(model.Key) (*keyPair, error)

// A secretResult is what readSecret returned.
type secretResult struct {
	pair *keyPair
	err  error
}

// readDefault sets the certificate for server names without an own one.
func (c *certificates) readDefault() []model.Problem {
	c.fallback = Certificate{Name: DefaultCertificateName, Chain: c.settings.DefaultChain, Key: c.settings.DefaultKey}
	key := c.settings.DefaultCertificate
	if key.Name == "" {
		return nil
	}
	report := func(reason, format string, args ...any) []model.Problem {
		return []model.Problem{model.Problemf(model.Ref("Secret", key), reason, format, args...)}
	}
	pair, err := c.read(key)
	if pair != nil {
		err = pair.lacks(c.settings.Now)
	}
	switch {
	case err != nil:
		return report("SecretInvalid", "the default certificate %v; a self-signed one is served", err)
	case pair == nil:
		return report("SecretNotFound", "the default certificate does not exist; a self-signed one is served")
	}
	c.fallback.Chain, c.fallback.Key, c.fallback.NotAfter = pair.chain, pair.key, pair.notAfter()
	c.fallback.Staple, _ = pair.staple.at(c.settings.Now)
	if reason, message := pair.warning(c.settings.Now); reason != "" {
		return report(reason, "the default certificate %s", message)
	}
	return nil
}

// add gives the server names of one entry of spec.tls their certificate.
func (c *certificates) add(r *request, t *tlsRequest) []model.Problem {
	if t.secret.Name == "" {
		return nil
	}
	var problems []model.Problem
	report := func(reason, format string, args ...any) {
		problems = append(problems, model.Problemf(model.Ref("Ingress", r.key), reason, format, args...))
	}
	if no := r.mayRefer(v1alpha1.GrantSecret, t.secret, "copy it into namespace "+r.key.Namespace); no != nil {
		report(no.reason, "%s; %s the default certificate", no.message, namesGet(t.hosts))
		return problems
	}
	pair, err := c.read(t.secret)
	if pair != nil {
		err = pair.lacks(c.settings.Now)
	}
	if err != nil || pair == nil {
		reason, message := "SecretNotFound", "of type kubernetes.io/tls does not exist"
		if err != nil {
			reason, message = "SecretInvalid", err.Error()
		}
		report(reason, "Secret %s %s; %s the default certificate", t.secret, message, namesGet(t.hosts))
		return problems
	}
	if len(t.hosts) == 0 {
		// They are kept in the request, since request.redirects asks for them too: certificates are built before hosts.
		t.hosts = pair.serverNames()
		for _, host := range t.hosts {
			r.tlsNames[host] = true
		}
		if len(t.hosts) == 0 {
			report("NoServerName", "its TLS entry names no hosts and neither does the certificate in Secret %s; it is not used", t.secret)
		}
	} else if names := pair.uncovered(t.hosts); len(names) > 0 {
		report("CertificateHostMismatch", "the certificate in Secret %s is not for %s; clients will refuse it", t.secret, firstFew(names))
	}
	if reason, message := pair.warning(c.settings.Now); reason != "" {
		report(reason, "the certificate in Secret %s %s; it is served nevertheless", t.secret, message)
	}
	certificate := c.certificate(t.secret, pair)
	var fault string
	if certificate.Staple, fault = pair.staple.at(c.settings.Now); fault != "" {
		report("StapleNotShown", "the OCSP response in %s of Secret %s %s; connections are made without it", stapleKey, t.secret, fault)
	}
	c.assign(r, t, certificate, report)
	return problems
}

// assign gives the names of an entry their certificate, but those that are another namespace's or have one.
func (c *certificates) assign(r *request, t *tlsRequest, certificate *Certificate, report reportFunc) {
	for _, name := range t.hosts {
		owner := c.owner(name)
		if owner != "" && owner != r.key.Namespace {
			if _, told := r.paths[name]; !told {
				report("HostConflict", "%s", elsewhere(name, owner, t.secret))
			}
			continue
		}
		switch c.byName[name] {
		case nil:
			c.byName[name] = certificate
			c.owners[name] = tlsOwner{r.key, t.secret, map[string]bool{r.key.Namespace: true}}
			certificate.ServerNames = append(certificate.ServerNames, name)
			if len(certificate.ServerNames) == 1 { // requests come in the order of their age
				certificate.Since = r.ingress.CreationTimestamp.Time
			}
		case certificate:
			c.owners[name].namespaces[r.key.Namespace] = true
		default:
			report("CertificateConflict", "host %s gets its certificate from Secret %s by Ingress %s, which comes first; Secret %s is not used for it",
				name, c.owners[name].secret, c.owners[name].ingress, t.secret)
		}
	}
}

// certificate returns the Certificate of a key pair, named by the first Secret that holds it.
func (c *certificates) certificate(secret model.Key, pair *keyPair) *Certificate {
	content := string(pair.chain) + string(pair.key)
	certificate := c.byContent[content]
	if certificate == nil {
		certificate = &Certificate{Name: secret.String(), Chain: pair.chain, Key: pair.key, NotAfter: pair.notAfter()}
		c.byContent[content] = certificate
	}
	return certificate
}

// list returns all Certificates that serve a name, and the default one, sorted by name.
func (c *certificates) list() []Certificate {
	out := []Certificate{c.fallback}
	for _, certificate := range c.byContent {
		if len(certificate.ServerNames) > 0 || c.shown[certificate.Name] {
			slices.Sort(certificate.ServerNames)
			out = append(out, *certificate)
		}
	}
	slices.SortFunc(out, func(a, b Certificate) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// of returns the name of the Certificate that a client gets who asks for a host: Envoy takes the filter chain
// with exactly this server name, else the longest wildcard that is a suffix, over any number of labels, else the
// default one.
func (c *certificates) of(host string) string {
	if name := c.entryOf(host); name != "" {
		return c.byName[name].Name
	}
	return DefaultCertificateName
}

// entryOf returns the entry of byName that a host gets its certificate by; empty if there is none.
func (c *certificates) entryOf(host string) string {
	for name := host; ; {
		if c.byName[name] != nil {
			return name
		}
		_, parent, found := strings.Cut(strings.TrimPrefix(name, "*."), ".")
		if !found {
			return ""
		}
		name = "*." + parent
	}
}

func namesGet(hosts []string) string {
	switch len(hosts) {
	case 0:
		return "clients get"
	case 1:
		return hosts[0] + " gets"
	}
	return fmt.Sprintf("%s get", firstFew(hosts))
}
