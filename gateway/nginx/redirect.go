package nginx

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"hythe.dev/hythe/gateway/policy"
)

// redirectsAsked is what is known of redirects before they are settled.
type redirectsAsked struct {
	permanent, temporal         policy.Redirect
	permanentCode, temporalCode int
	relative                    bool
	prefix                      string // of X-Forwarded-Prefix
	from, to                    string // of proxy-redirect
}

// mostAliases bounds the further names of one Ingress.
const mostAliases = 100

var (
	// redirectBegin is the part of a redirect before its path.
	redirectBegin = regexp.MustCompile(`^(https?|\$scheme)://([A-Za-z0-9.-]+|\$(?:best_http_host|http_host|host|server_name))(?::([0-9]{1,5}))?`)
	redirectPath  = regexp.MustCompile(`^(/[A-Za-z0-9\-._~!&'()*+,;=:@/%$?#]*)?$`)
	// redirectEnds are variables of nginx that may end a redirect: what of the request they keep.
	redirectEnds = []struct {
		text        string
		path, query bool
	}{
		{"$request_uri", true, true},
		{"$uri$is_args$args", true, true},
		{"$uri$is_args$query_string", true, true},
		{"$uri?$args", true, true},
		{"$uri?$query_string", true, true},
		{"$uri", true, false},
		{"$is_args$args", false, true},
		{"$is_args$query_string", false, true},
		{"?$args", false, true},
		{"?$query_string", false, true},
	}
	braced = regexp.MustCompile(`\$\{([a-z_0-9]+)\}`)
)

// parseRedirect reads a URL, or a path of the same host, with variables of nginx where Envoy has something for them.
func parseRedirect(value string) (policy.Redirect, error) {
	bad := func(why string) (policy.Redirect, error) {
		return policy.Redirect{}, fmt.Errorf("%s %s; it must be a URL as https://example.com/path, or a path of the same host", quoted(value), why)
	}
	var r policy.Redirect
	if len(value) > 2000 {
		return bad("is longer than 2,000 bytes")
	}
	rest := braced.ReplaceAllString(value, "$$$1")
	if !strings.HasPrefix(rest, "/") {
		m := redirectBegin.FindStringSubmatch(rest)
		if m == nil {
			return bad("has no scheme http or https, or a variable that is not understood")
		}
		rest = rest[len(m[0]):]
		if m[1] != "$scheme" {
			r.Scheme = m[1]
		}
		if !strings.HasPrefix(m[2], "$") {
			r.Host = m[2]
		}
		port, err := strconv.ParseUint(m[3], 10, 16)
		if m[3] != "" && (err != nil || port == 0) {
			return bad("has no port from 1 to 65535")
		}
		r.Port = uint16(port)
	} else if strings.HasPrefix(rest, "//") {
		return bad("has an empty path element")
	}
	for _, end := range redirectEnds {
		if before, ok := strings.CutSuffix(rest, end.text); ok {
			rest, r.KeepPath, r.KeepQuery = before, end.path, end.query
			break
		}
	}
	groups := groupsOnly(rest)
	switch {
	case !redirectPath.MatchString(rest):
		return bad("has a character that no path has")
	case strings.Contains(rest, "$") && !groups:
		return bad("has a variable that is not understood: $1 to $9, $host and $scheme are, and at its end $request_uri, $uri and $args")
	case groups && (r.KeepPath || strings.ContainsAny(rest, "?#")), (r.KeepPath || r.KeepQuery) && strings.ContainsAny(rest, "?#"):
		return bad("has a query or a fragment beside what it keeps of the request")
	}
	r.Path = rest
	if rest == "" && !r.KeepPath && (r.Scheme == "" || r.Host == "" || r.KeepQuery) {
		r.Path = "/"
	}
	return r, nil
}

// groupsOnly says whether a text has variables, all of which are $1 to $9.
func groupsOnly(text string) bool {
	found := false
	for i := range len(text) {
		if text[i] != '$' {
			continue
		}
		if i+1 == len(text) || text[i+1] < '1' || text[i+1] > '9' {
			return false
		}
		found = true
	}
	return found
}

// redirectURL makes a reader of a redirect.
func redirectURL(field func(*redirectsAsked) *policy.Redirect, code int) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if value == "" {
			return nil
		}
		r, err := parseRedirect(value)
		if err == nil {
			r.Code = code
			*field(&s.redirects) = r
		}
		return err
	}
}

// redirectCode makes a reader of a redirect's status.
func redirectCode(field func(*redirectsAsked) *int) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || !slices.Contains([]int{301, 302, 303, 307, 308}, n) {
			return fmt.Errorf("%s is not 301, 302, 303, 307 or 308", quoted(value))
		}
		*field(&s.redirects) = n
		return nil
	}
}

var rootPattern = regexp.MustCompile(`^/[A-Za-z0-9\-._~!&'()*+,;=:@/%?#]*$`)

func appRoot(s *Settings, value string) error {
	switch path, _, _ := strings.Cut(strings.SplitN(value, "#", 2)[0], "?"); {
	case value == "":
		return nil
	case len(value) > 2000 || !rootPattern.MatchString(value) || strings.HasPrefix(value, "//"):
		return fmt.Errorf("%s must be a path that begins with one /, without variables of nginx", quoted(value))
	case path == "/":
		return fmt.Errorf("%s would be redirected to itself", quoted(value))
	}
	s.Host.AppRoot = value
	return nil
}

// serverAlias reads names. Package gateway checks each.
func serverAlias(s *Settings, value string) error {
	var without []string
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
		case strings.HasPrefix(name, "~"):
			without = append(without, quoted(name)+", a regular expression")
		case len(s.Host.Aliases) == mostAliases:
			without = append(without, quoted(name)+" and what follows, since there are more than "+strconv.Itoa(mostAliases))
			return &harmlessError{"the rest of it holds, but not " + strings.Join(without, ", ")}
		case !slices.Contains(s.Host.Aliases, name):
			s.Host.Aliases = append(s.Host.Aliases, name)
		}
	}
	if len(without) > 0 {
		return &harmlessError{"the rest of it holds, but not " + strings.Join(without, ", ")}
	}
	return nil
}

var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9\-._~/%]*$`)

func forwardedPrefix(s *Settings, value string) error {
	if len(value) > 1000 || !prefixPattern.MatchString(value) {
		return fmt.Errorf("%s must be a path as /app, without variables of nginx", quoted(value))
	}
	s.redirects.prefix = value
	return nil
}

func redirectFrom(s *Settings, value string) error {
	if strings.HasPrefix(value, "~") {
		return fmt.Errorf("%s is a regular expression, and only the begin of Location can be replaced", quoted(value))
	}
	_, err := locationParts(value)
	if err == nil {
		s.redirects.from = value
	}
	return err
}

// redirectTo is read after redirectFrom.
func redirectTo(s *Settings, value string) error {
	if s.redirects.from == "" && value != "" && value != "off" {
		return errors.New("it has a meaning only together with proxy-redirect-from")
	}
	_, err := locationParts(value)
	if err == nil && value != "off" {
		s.redirects.to = value
	}
	return err
}

var (
	locationPattern  = regexp.MustCompile(`^[A-Za-z0-9\-._~!&'()*+,;=:@/%?#$\[\]]*$`)
	locationVariable = regexp.MustCompile(`\$(best_http_host|http_host|host|server_name|scheme)`)
)

// locationParts reads a part of a Location.
func locationParts(value string) ([]policy.HeaderPart, error) {
	value = braced.ReplaceAllString(value, "$$$1")
	if len(value) > 1000 || !locationPattern.MatchString(value) {
		return nil, fmt.Errorf("%s has a character that no URL has", quoted(value))
	}
	var parts []policy.HeaderPart
	text := func(t string) error {
		if strings.Contains(t, "$") {
			return fmt.Errorf("%s has a variable that is not understood; $scheme and $host are", quoted(value))
		}
		if t != "" {
			parts = append(parts, policy.HeaderPart{Text: t})
		}
		return nil
	}
	at := 0
	for _, m := range locationVariable.FindAllStringSubmatchIndex(value, -1) {
		if err := text(value[at:m[0]]); err != nil {
			return nil, err
		}
		of := policy.HeaderHost
		if value[m[2]:m[3]] == "scheme" {
			of = policy.HeaderScheme
		}
		parts = append(parts, policy.HeaderPart{Of: of})
		at = m[1]
	}
	return parts, text(value[at:])
}

// settleRedirects joins what belongs together. temporal-redirect goes before permanent-redirect, as in ingress-nginx.
func (s *Settings) settleRedirects() {
	r := s.redirects
	s.redirects = redirectsAsked{}
	for _, asked := range []struct {
		to   policy.Redirect
		code int
	}{{r.permanent, r.permanentCode}, {r.temporal, r.temporalCode}} {
		if asked.to.Code == 0 {
			continue
		}
		s.Route.Redirect, s.Route.Answer = asked.to, policy.Answer{}
		if asked.code != 0 {
			s.Route.Redirect.Code = asked.code
		}
		s.Route.Redirect.Relative = r.relative
	}
	s.Host.RelativeRoot = r.relative && s.Host.AppRoot != ""
	if r.prefix != "" {
		s.Route.RequestHeaders = append(s.Route.RequestHeaders, policy.Header{Name: "X-Forwarded-Prefix", Value: policy.Literal(r.prefix)})
	}
	if r.to == "" || r.from == "" || r.from == "off" || r.from == "default" {
		return // default would change the address of a pod, which no answer has
	}
	s.Route.Answers.LocationFrom, _ = locationParts(r.from)
	s.Route.Answers.LocationTo, _ = locationParts(r.to)
}
