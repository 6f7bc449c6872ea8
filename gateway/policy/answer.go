package policy

import (
	"strconv"
	"strings"
)

// A Redirect sends the client elsewhere.
type Redirect struct {
	// Scheme, Host and Port are empty or 0 where they stay the client's.
	Scheme, Host string
	Port         uint16
	// Path takes the place of path and query, with $1 to $9 as in Route.Rewrite. It may have a query of its own, or a fragment.
	Path string
	// KeepPath puts the path of the request behind Path, and KeepQuery its query behind both.
	KeepPath, KeepQuery bool
	// Relative names neither scheme nor host, where neither is set.
	Relative bool
	// Code is 301, 302, 303, 307 or 308; 0 for no redirect.
	Code int
}

// String is the code and the place: "301:https://other.example/x". A path that is kept is "{path}".
func (r Redirect) String() string {
	if r.Code == 0 {
		return ""
	}
	out := strconv.Itoa(r.Code) + ":"
	if r.Scheme != "" {
		out += r.Scheme + ":"
	}
	if r.Host != "" {
		out += "//" + r.Host
	}
	if r.Port != 0 {
		out += ":" + strconv.Itoa(int(r.Port))
	}
	out += r.Path
	if r.KeepPath {
		out += "{path}"
	}
	if r.KeepQuery {
		out += "{query}"
	}
	return out
}

// Literal is the place to which all requests are sent, whatever they are; empty if it depends on the request.
func (r Redirect) Literal() string {
	if r.KeepPath || r.KeepQuery || strings.Contains(r.Path, "$") {
		return ""
	}
	switch {
	case r.Scheme != "" && r.Host != "":
		out := r.Scheme + "://" + r.Host
		if r.Port != 0 {
			out += ":" + strconv.Itoa(int(r.Port))
		}
		return out + r.Path
	case r.Relative && r.Scheme == "" && r.Host == "":
		return r.Path
	}
	return ""
}

// Answers are changes of what backends answer.
type Answers struct {
	// CookieDomain and CookiePath change attributes of Set-Cookie (RFC 6265 section 4.1): a domain that is From, without a
	// leading dot and in any case, and paths that begin with From.
	CookieDomain, CookiePath Replacement
	// LocationFrom is the begin of Location, and of the URL in Refresh, in the place of which LocationTo stands.
	LocationFrom, LocationTo []HeaderPart
}

// A Replacement puts To in the place of From. An empty From changes nothing.
type Replacement struct{ From, To string }

// String lists the changes: "cookie-domain:a.test>b.test".
func (a Answers) String() string {
	var words []string
	add := func(name, from, to string) {
		if from != "" {
			words = append(words, name+":"+from+">"+to)
		}
	}
	add("cookie-domain", a.CookieDomain.From, a.CookieDomain.To)
	add("cookie-path", a.CookiePath.From, a.CookiePath.To)
	add("location", partsText(a.LocationFrom), partsText(a.LocationTo))
	return strings.Join(words, ",")
}
