package auth

import (
	"net/netip"

	"hythe.dev/hythe/gateway/policy"
)

// A Table holds Entries by the names that routes have for them: "namespace/name" of the Ingress.
type Table map[string]Entry

// An Entry is what the paths of an Ingress ask of whom they let in. Where it asks for nothing it lets nobody in.
//
// Versions of the gateway and of the doorkeeper differ: a field that the reader does not know closes the Entry. So a field
// has a value only where it is needed.
type Entry struct {
	// Users may come in by their passwords.
	Users []User `json:",omitempty"`
	Realm string `json:",omitempty"`
	// Ask is the server that decides.
	Ask *Ask `json:",omitempty"`
	// Any lets in who has a password or is let in by the server; otherwise both are needed, where there are both.
	Any bool `json:",omitempty"`
}

// A User has a hash of a password, of a kind that package htpasswd knows.
type User struct{ Name, Hash string }

// An Ask is a server that is asked for each request.
type Ask struct {
	policy.ExternalAuth
	// Targets are where the server is, by the host that the client asks for. Hosts without one let nobody in.
	Targets []Target
}

// A Target is a server that can be reached.
type Target struct {
	// For is the host that the client asks for: a name, "*.example.com", or "*" for all others.
	For string
	// Host is the Host header.
	Host string
	// Addresses are those of pods, sorted.
	Addresses []netip.AddrPort
	// Name is that of a server which is not the cluster's, with its port, in the place of Addresses. Its certificate is
	// verified.
	Name string `json:",omitempty"`
	// TLS encrypts; nobody checks a pod's certificate, as in nginx.
	TLS bool `json:",omitempty"`
	// Public is the scheme of a host that the gateway serves itself: such a server gets the headers of a proxy.
	Public string `json:",omitempty"`
}
