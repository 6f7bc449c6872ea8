package policy

import (
	"strconv"
	"strings"
	"time"
)

// An ExternalAuth lets a server decide, request by request, who may come in.
type ExternalAuth struct {
	// Scheme is http or https; empty where nobody is asked.
	Scheme string
	// Host is the server's name, or HostOfRequest for the host that the client asked for.
	Host string
	// Port is 0 for that of the scheme.
	Port uint16
	// URI is the path with its query. It begins with a slash.
	URI Pattern
	// Method is GET if it is empty.
	Method string
	// SignIn is where clients are sent, by 302, that the server answers 401; empty for 401.
	SignIn Pattern `json:",omitempty"`
	// Copy are headers of the server's answer that backends get. Clients cannot send them.
	Copy []HeaderCopy `json:",omitempty"`
	// Redirect is the header X-Auth-Request-Redirect that the server gets; empty for the request's URI.
	Redirect Pattern `json:",omitempty"`
	// Headers are changes of the headers that the server gets, besides those of the client.
	Headers []AskHeader `json:",omitempty"`
	// CacheKey says of which requests the answer is the same, and CacheFor for how long; empty for none.
	CacheKey Pattern     `json:",omitempty"`
	CacheFor []CacheTime `json:",omitempty"`
}

// HostOfRequest stands for the host that the client asked for.
const HostOfRequest = "$host"

// A HeaderCopy takes a header of the auth server's answer for one of the request.
type HeaderCopy struct{ From, To string }

// An AskHeader is a header that the auth server gets; one without a value is taken away.
type AskHeader struct {
	Name  string
	Value Pattern `json:",omitempty"`
}

// A CacheTime is how long answers of a status are believed.
type CacheTime struct {
	// Status is 0 for 200, 301 and 302, as in nginx.
	Status int
	For    time.Duration
}

// Asks says whether a server is asked.
func (a ExternalAuth) Asks() bool { return a.Scheme != "" }

// URL is whom it asks, for people.
func (a ExternalAuth) URL() string {
	if !a.Asks() {
		return ""
	}
	out := a.Scheme + "://" + a.Host
	if a.Port != 0 {
		out += ":" + strconv.Itoa(int(a.Port))
	}
	return out + a.URI.String()
}

// A Pattern is text with what is known of a request in it. Its parts are put together.
type Pattern []PatternPart

// A PatternPart is text, or what is known of the request.
type PatternPart struct {
	// Text is literal where Of is PartText, and otherwise a name: of a header, cookie or parameter.
	Text string   `json:",omitempty"`
	Of   PartKind `json:",omitempty"`
}

// A PartKind is what a PatternPart stands for. The numbers are in files that other versions read: they stay.
type PartKind uint8

// The kinds of parts.
const (
	PartText       PartKind = 0
	PartHost       PartKind = 1  // the host that was asked for
	PartScheme     PartKind = 2  // http or https
	PartURI        PartKind = 3  // path and query
	PartEscapedURI PartKind = 4  // the same, escaped for the value of a query's parameter
	PartPath       PartKind = 5  // without the query
	PartQuery      PartKind = 6  // without the question mark
	PartMethod     PartKind = 7  // the method
	PartClient     PartKind = 8  // the client's address
	PartHeader     PartKind = 9  // a header
	PartCookie     PartKind = 10 // a cookie
	PartArgument   PartKind = 11 // a parameter of the query, as it is written there
	PartAnswer     PartKind = 12 // a header of the auth server's answer
	PartKinds      PartKind = 13 // how many there are
)

// Plain is the text of a Pattern without anything of the request; false if it has such.
func (p Pattern) Plain() (string, bool) {
	var out strings.Builder
	for _, part := range p {
		if part.Of != PartText {
			return "", false
		}
		out.WriteString(part.Text)
	}
	return out.String(), true
}

// String is the Pattern for people: "/auth?u={uri}".
func (p Pattern) String() string {
	names := [PartKinds]string{
		"", "host", "scheme", "uri", "escaped-uri", "path", "query", "method", "client", "header ", "cookie ", "argument ", "answer ",
	}
	var out strings.Builder
	for _, part := range p {
		switch {
		case part.Of == PartText:
			out.WriteString(part.Text)
		case part.Of < PartKinds:
			out.WriteString("{" + names[part.Of] + part.Text + "}")
		}
	}
	return out.String()
}
