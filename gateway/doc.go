// Package gateway turns a model.Snapshot into a Config: which hosts are served, with which certificate, and which
// path of them goes to which Service port.
//
//	Ingress, IngressClass, Service, Endpoints, Secret ── Build ──> Config ── xds.Build ──> Envoy resources
//
// Build is pure. What an Ingress asks for and does not get is a Problem of that Ingress and costs nothing else.
//
//	each Ingress ── newRequest ──> request ─┐                  ┌─ buildHost, for each host name
//	                                        ├── index ─────────┼─ buildEndpoints, for each Service port in use
//	each Secret ─── readSecret ──> keyPair ─┘                  └─ certificates.list
//
// # Whose
//
// An Ingress is Hythe's if its class is: named by the annotation kubernetes.io/ingress.class or, failing that, by
// spec.ingressClassName, with an IngressClass object of the controller hythe.dev/ingress, or by Settings.Classes.
// One that names no class belongs to the default class, or to Hythe by Settings.WithoutClass. Skipped lists the
// others.
//
// # Who wins
//
// A host belongs to one namespace: that of the oldest Ingress with rules for it that can work as they are written. Only
// that namespace gives it paths and a certificate; a wildcard certificate of another does not cover it. Within the
// namespace, of two Ingresses that want the same path, a certificate for the same server name, or the default backend,
// the oldest has it, then the first by namespace and name; those without a creation time come last. What cannot work as
// it is written, a Secret that is invalid for example, does not win. The loser gets a Problem.
//
// Hosts that nobody names are served by rules without a host, and by default backends, only of namespaces that an
// administrator allowed: Settings.CatchAllNamespaces, and an annotation of the IngressClass.
//
// # Which route
//
// An exact host goes before a wildcard, and does not fall through to it; a wildcard covers one label. Within a
// host Exact goes before Prefix and a longer path before a shorter one. ImplementationSpecific is Prefix. What no
// path matches goes to spec.defaultBackend of an Ingress with rules for the host, else to that of the oldest
// Ingress that has one, else it is 404. A path whose backend is missing or refused answers 503 itself.
//
// # Certificates
//
// spec.tls gives server names a Secret of the Ingress's own namespace. Envoy picks by server name alone, so a
// wildcard entry serves hosts of other Ingresses of its namespace below it, too; those of other namespaces are pinned
// to the default certificate (owner.go). A host that an entry of its own Ingress names is
// redirected to https, also while the Secret is missing or invalid: then the default certificate is served.
package gateway
