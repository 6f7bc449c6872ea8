package policy

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A Session keeps a client with the pod that served it first, by a cookie.
type Session struct {
	// Cookie is the cookie's name; empty for no session.
	Cookie string
	// Path and Domain are those of the cookie; an empty Path is that of the route.
	Path, Domain string
	// MaxAge is how long browsers keep the cookie; 0 until they are closed.
	MaxAge time.Duration
	// SameSite is Strict, Lax, None or empty.
	SameSite string
	Secure   bool
	// Partitioned keeps the cookie apart for each site that embeds this one.
	Partitioned bool
}

// String is "NAME;Max-Age=1h0m0s;Path=/;Secure".
func (s Session) String() string {
	if s.Cookie == "" {
		return ""
	}
	out := s.Cookie
	add := func(name, value string) {
		if value != "" {
			out += ";" + name + "=" + value
		}
	}
	if s.MaxAge != 0 {
		add("Max-Age", s.MaxAge.String())
	}
	add("Path", s.Path)
	add("Domain", s.Domain)
	add("SameSite", s.SameSite)
	if s.Secure {
		out += ";Secure"
	}
	if s.Partitioned {
		out += ";Partitioned"
	}
	return out
}

// Limits bound what one client may ask for, and how fast it is answered.
type Limits struct {
	// PerSecond and PerMinute are requests of one client; 0 for no limit. A client is an IPv4 address, or an IPv6 network
	// of 64 bits.
	PerSecond, PerMinute uint32
	// Burst is how many times as many may come at once; 0 means the default, 5.
	Burst uint32
	// Exempt are clients without these limits: sorted, without repetition.
	Exempt []netip.Prefix
	// Bandwidth is how many KiB of an answer are sent in a second; 0 for no limit. It is for each request alone.
	Bandwidth uint64
}

// Rated says whether requests are counted.
func (l Limits) Rated() bool { return l.PerSecond != 0 || l.PerMinute != 0 }

// String is "5r/s,100r/m,burst=5,bandwidth=100".
func (l Limits) String() string {
	var words []string
	if l.PerSecond != 0 {
		words = append(words, strconv.FormatUint(uint64(l.PerSecond), 10)+"r/s")
	}
	if l.PerMinute != 0 {
		words = append(words, strconv.FormatUint(uint64(l.PerMinute), 10)+"r/m")
	}
	if l.Rated() && l.Burst != 0 {
		words = append(words, "burst="+strconv.FormatUint(uint64(l.Burst), 10))
	}
	if l.Rated() && len(l.Exempt) > 0 {
		words = append(words, "exempt="+prefixes(l.Exempt))
	}
	if l.Bandwidth != 0 {
		words = append(words, "bandwidth="+strconv.FormatUint(l.Bandwidth, 10))
	}
	return strings.Join(words, ",")
}

// A HashKey is a part of what decides the pod of a request where a Backend is Hashed.
type HashKey struct {
	Of HashSource
	// Name is of the header, cookie or parameter of the query.
	Name string
}

// A HashSource is where the value of a HashKey comes from.
type HashSource uint8

// The sources of HashKeys.
const (
	HashURI    HashSource = iota // path and query
	HashPath                     // path without query
	HashHost                     // the host that was asked for
	HashClient                   // the client's address
	HashHeader
	HashCookie
	HashQuery
)

// String is "uri", "header:X-User".
func (k HashKey) String() string {
	out := [...]string{"uri", "path", "host", "client", "header", "cookie", "query"}[k.Of]
	if k.Name != "" {
		out += ":" + k.Name
	}
	return out
}

func hashText(keys []HashKey) string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.String()
	}
	return strings.Join(out, "+")
}

// A Balance is how a pod is chosen.
type Balance uint8

// The ways of choosing; the zero value takes the one with fewer open requests of two.
const (
	LeastRequest Balance = iota
	RoundRobin
	Hashed // by the HashKeys of the route
)

// String is part of names of Backends.
func (b Balance) String() string { return [...]string{"least", "round-robin", "hash"}[b] }

// A Retry says when a request is tried on another pod. What never reached a pod is always tried again, unless Off.
type Retry struct {
	Off bool
	// Tries is how many pods are asked at most; 0 means the default of package xds.
	Tries uint32
	// Reset tries again when a pod broke off before it answered, and Statuses when it answered one of these; not for
	// methods that change something each time (POST, PATCH, LOCK), unless Unsafe.
	Reset    bool
	Statuses []uint32
	Unsafe   bool
}

// String is "off" or "tries=3,reset,503,unsafe".
func (r Retry) String() string {
	if r.Off {
		return "off"
	}
	var words []string
	if r.Tries != 0 {
		words = append(words, "tries="+strconv.FormatUint(uint64(r.Tries), 10))
	}
	if r.Reset {
		words = append(words, "reset")
	}
	for _, s := range r.Statuses {
		words = append(words, strconv.FormatUint(uint64(s), 10))
	}
	if r.Unsafe {
		words = append(words, "unsafe")
	}
	return strings.Join(words, ",")
}

// Answered says whether what a pod began is tried again.
func (r Retry) Answered() bool { return r.Reset || len(r.Statuses) > 0 }

// A Canary says which requests go to another backend. Header goes before Cookie, Cookie before Weight.
type Canary struct {
	// Header sends by its value: "always" or "never", or, where one of these is set, Value or what matches Pattern (RE2,
	// anywhere in the value).
	Header, Value, Pattern string
	// Cookie sends by its value "always" or "never".
	Cookie string
	// Weight of Total go there at random; Total is not 0.
	Weight, Total uint32
	// Free lets requests of a Session go either way; otherwise a client stays where it was first.
	Free bool
}

// String is "header:X-Canary=v1,cookie:canary,10/100".
func (c Canary) String() string {
	var words []string
	if c.Header != "" {
		word := "header:" + c.Header
		switch {
		case c.Value != "":
			word += "=" + c.Value
		case c.Pattern != "":
			word += "~" + c.Pattern
		}
		words = append(words, word)
	}
	if c.Cookie != "" {
		words = append(words, "cookie:"+c.Cookie)
	}
	words = append(words, strconv.FormatUint(uint64(c.Weight), 10)+"/"+strconv.FormatUint(uint64(c.Total), 10))
	if c.Free {
		words = append(words, "free")
	}
	return strings.Join(words, ",")
}
