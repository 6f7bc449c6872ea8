package nginx

import (
	"time"

	"hythe.dev/hythe/gateway/policy"
)

// Settings are what the annotations of one Ingress ask for, in types. The zero value is an Ingress without annotations.
type Settings struct {
	// Route, Host and Backend hold for all paths, hosts and backends of the Ingress.
	Route   policy.Route
	Host    policy.Host
	Backend policy.Backend
	// Regex makes regular expressions of its paths: ImplementationSpecific ones, and Prefix ones that look like it.
	Regex bool
	// NoRedirect switches the redirect to https off, ForceRedirect on where there is no TLS entry.
	NoRedirect, ForceRedirect bool
	// Passthrough hands the TLS connections of its hosts to the backend of path / as they are.
	Passthrough bool
	// Upstream is how TLS is spoken to pods, which has a meaning where Backend.Protocol has TLS.
	Upstream policy.Upstream
	// Canary marks an Ingress that takes a share of another one's requests: CanaryBy says which.
	Canary   bool
	CanaryBy policy.Canary
	// Mirror gets copies of the requests.
	Mirror Mirror
	// ErrorPages answers in the place of the backend.
	ErrorPages ErrorPages

	// Basic asks for a user and a password.
	Basic BasicAuth
	// Auth is a server that is asked who may come in. AuthFault says what is wrong with the place where clients sign in;
	// without it they get 401.
	Auth      policy.ExternalAuth
	AuthFault string
	// Headers and AuthHeaders name ConfigMaps with headers of answers, and of requests to the auth server.
	Headers, AuthHeaders string
	// Clients says who must show a certificate. AsksClients is set where that is asked for, also where Clients has no Secret
	// since it cannot be read, or is missing: nothing of the host may be served then.
	Clients     policy.ClientAuth
	AsksClients bool

	// What Read knows before it settles; zero afterwards.
	affinity, badPattern, noMirror bool
	expires                        time.Duration
	cors                           corsAsked
	balance                        policy.Balance
	ext                            extAuth
	redirects                      redirectsAsked
	keepErrors, noErrors           bool
	clients                        clientsAsked
}

// A Note says what is not done as it is written.
type Note struct {
	// Reason is that of a Problem.
	Reason string
	// Annotation is the whole name as it is written in the Ingress.
	Annotation string
	Message    string
	// Closed says that the paths of the Ingress must not be served: a protection was asked for that is not there.
	Closed bool
}

// Reasons of Notes.
const (
	// Ignored: it has no effect.
	Ignored = "AnnotationsIgnored"
	// Invalid: its value cannot be read.
	Invalid = "InvalidAnnotation"
	// Unprotected: it asks for a protection that is not there.
	Unprotected = "ProtectionNotSupported"
)

// Support says how an annotation is taken.
type Support uint8

// How annotations are taken.
const (
	// NotYet has no effect, and that is told.
	NotYet Support = iota
	// Full does what nginx does.
	Full
	// Nearest does what is nearest to it; the Key's Note says what differs.
	Nearest
	// Safe does what is meant without nginx's danger; the Key's Note says what differs.
	Safe
	// Needless has no effect, since there is nothing to be done here.
	Needless
	// Refused will have no effect; the Key's Note says why and what to do instead.
	Refused
)

// String is the word of the table.
func (s Support) String() string {
	return [...]string{"not yet", "yes", "nearest meaning", "safe meaning", "not needed", "refused"}[s]
}

// A Key is an annotation of ingress-nginx.
type Key struct {
	// Name is without prefix.
	Name    string
	Support Support
	// Protects is set where it restricts who may come in: the paths of an Ingress answer 503 rather than be open.
	Protects bool
	// Note is one sentence for people: what differs, or the remedy.
	Note string
	// read puts the value into Settings; nil where there is nothing to be read.
	read func(s *Settings, value string) error
}
