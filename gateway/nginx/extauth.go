package nginx

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/gateway/policy"
)

// extAuth is what the annotations of auth-url say, before they are put together.
type extAuth struct {
	asked       policy.ExternalAuth
	signIn      string
	signInParam string
	// locals are variables that auth_request_set makes of the auth server's answer: the header.
	locals map[string]string
	// noCache is set where a duration cannot be read: then nothing is kept.
	noCache bool
}

const (
	// signInParam is the parameter by which the sign-in page is told where the client wanted to go.
	signInParam = "rd"
	// maxPattern bounds the length of a URL with variables.
	maxPattern = 2000
)

var (
	variablePattern = regexp.MustCompile(`\$(\{[A-Za-z0-9_]+\}|[A-Za-z0-9_]+)?`)
	authHost        = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
)

// parsePattern reads text with variables of nginx.
func parsePattern(text string, locals map[string]string) (policy.Pattern, error) {
	if len(text) > maxPattern {
		return nil, fmt.Errorf("it is longer than %d bytes", maxPattern)
	}
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f || text[i] == '"' || text[i] == '\\' || text[i] == '<' || text[i] == '>' {
			return nil, fmt.Errorf("%s has a character that no URL has", quoted(text))
		}
	}
	var out policy.Pattern
	at := 0
	for _, m := range variablePattern.FindAllStringSubmatchIndex(text, -1) {
		if m[0] > at {
			out = append(out, policy.PatternPart{Text: text[at:m[0]]})
		}
		at = m[1]
		if m[2] < 0 {
			return nil, fmt.Errorf("%s has a $ without the name of a variable", quoted(text))
		}
		part, ok := variable(strings.Trim(text[m[2]:m[3]], "{}"), locals)
		if !ok {
			return nil, fmt.Errorf("variable %s is not known here; $host, $scheme, $request_uri, $escaped_request_uri, $uri, $args, $request_method, $remote_addr, $http_NAME, $cookie_NAME and $arg_NAME are",
				quoted(text[m[0]:m[1]]))
		}
		out = append(out, part)
	}
	if at < len(text) {
		out = append(out, policy.PatternPart{Text: text[at:]})
	}
	return out, nil
}

func variable(name string, locals map[string]string) (policy.PatternPart, bool) {
	simple := map[string]policy.PartKind{
		"host": policy.PartHost, "http_host": policy.PartHost, "best_http_host": policy.PartHost, "server_name": policy.PartHost,
		"scheme": policy.PartScheme, "pass_access_scheme": policy.PartScheme,
		"request_uri": policy.PartURI, "escaped_request_uri": policy.PartEscapedURI, "uri": policy.PartPath, "document_uri": policy.PartPath,
		"args": policy.PartQuery, "query_string": policy.PartQuery, "request_method": policy.PartMethod,
		"remote_addr": policy.PartClient, "the_real_ip": policy.PartClient,
	}
	if kind, ok := simple[name]; ok {
		return policy.PatternPart{Of: kind}, true
	}
	if header, ok := locals[name]; ok {
		return policy.PatternPart{Of: policy.PartAnswer, Text: header}, true
	}
	if header, ok := strings.CutPrefix(name, "http_"); ok && header != "" {
		return policy.PatternPart{Of: policy.PartHeader, Text: strings.ToLower(strings.ReplaceAll(header, "_", "-"))}, true
	}
	if cookie, ok := strings.CutPrefix(name, "cookie_"); ok && cookie != "" {
		return policy.PatternPart{Of: policy.PartCookie, Text: cookie}, true
	}
	if arg, ok := strings.CutPrefix(name, "arg_"); ok && arg != "" {
		return policy.PatternPart{Of: policy.PartArgument, Text: arg}, true
	}
	return policy.PatternPart{}, false
}

// authURL reads whom to ask. The host is a name, or that of the request.
func authURL(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	a := &s.ext.asked
	scheme, rest, ok := strings.Cut(value, "://")
	if scheme = strings.ToLower(scheme); !ok || scheme != "http" && scheme != "https" {
		return fmt.Errorf("%s is not a URL as http://NAME.NAMESPACE.svc/path or https://auth.example.com/path", quoted(value))
	}
	rest, _, _ = strings.Cut(rest, "#")
	authority, uri := rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, uri = rest[:i], rest[i:]
	}
	if uri[0] == '?' {
		uri = "/" + uri
	}
	host, port, hasPort := strings.Cut(authority, ":")
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%s has a port that is not a number from 1 to 65535", quoted(value))
		}
		a.Port = uint16(n)
	}
	switch {
	case host == "$host", host == "$http_host", host == "$best_http_host":
		host = policy.HostOfRequest
	case strings.ContainsAny(host, "$@[]"), !authHost.MatchString(host), strings.Contains(host, ".."), len(host) > 253:
		return fmt.Errorf("%s has a host that is neither a name nor $host", quoted(value))
	}
	pattern, err := parsePattern(uri, nil)
	if err != nil {
		return err
	}
	a.Scheme, a.Host, a.URI = scheme, strings.ToLower(host), pattern
	return nil
}

func authMethod(s *Settings, value string) error {
	if !slices.Contains([]string{"", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, value) {
		return fmt.Errorf("%s is not a method as GET", quoted(value))
	}
	s.ext.asked.Method = value
	return nil
}

// authSignIn keeps the URL of the sign-in page: its variables may be made by auth-snippet, which is read later.
func authSignIn(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	lower := strings.ToLower(value)
	if !strings.HasPrefix(lower, "http://") && !strings.HasPrefix(lower, "https://") && !strings.HasPrefix(lower, "$scheme://") &&
		(!strings.HasPrefix(lower, "/") || strings.HasPrefix(lower, "//")) {
		return fmt.Errorf("%s is not a URL as https://auth.example.com/start", quoted(value))
	}
	if len(value) > maxPattern {
		return fmt.Errorf("it is longer than %d bytes", maxPattern)
	}
	s.ext.signIn = value
	return nil
}

func authSignInParam(s *Settings, value string) error {
	if value != "" && !tokenPattern.MatchString(value) {
		return fmt.Errorf("%s is not the name of a parameter", quoted(value))
	}
	s.ext.signInParam = value
	return nil
}

// authResponseHeaders reads which headers of the answer backends get.
func authResponseHeaders(s *Settings, value string) error {
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if err := copyable(name); err != nil {
			return err
		}
		s.ext.asked.Copy = append(s.ext.asked.Copy, policy.HeaderCopy{From: name, To: name})
	}
	return nil
}

// copyable says whether requests may get a header of this name.
func copyable(name string) error {
	_, err := newHeader(name, "")
	return err
}

func authRequestRedirect(s *Settings, value string) error {
	pattern, err := parsePattern(value, nil)
	s.ext.asked.Redirect = pattern
	return err
}

func authCacheKey(s *Settings, value string) error {
	pattern, err := parsePattern(value, nil)
	s.ext.asked.CacheKey = pattern
	return err
}

// authCacheDuration reads "200 202 10m, 401 5m". What cannot be read keeps nothing.
func authCacheDuration(s *Settings, value string) error {
	s.ext.noCache = true
	var out []policy.CacheTime
	for part := range strings.SplitSeq(value, ",") {
		words := strings.Fields(part)
		if len(words) == 0 {
			continue
		}
		last := words[len(words)-1]
		d, err := nginxDuration(last)
		if err != nil {
			return err
		}
		for _, word := range words[:len(words)-1] {
			status, err := strconv.Atoi(word)
			if err != nil || status < 200 || status > 599 {
				return fmt.Errorf("%s is not a status", quoted(word))
			}
			out = append(out, policy.CacheTime{Status: status, For: d})
		}
		if len(words) == 1 {
			out = append(out, policy.CacheTime{For: d})
		}
	}
	s.ext.asked.CacheFor, s.ext.noCache = out, false
	return nil
}

// nginxDuration reads a time as nginx writes it: "10m", "1h", "500ms", "3" for seconds. A day is the longest that is kept.
func nginxDuration(value string) (time.Duration, error) {
	units := map[string]time.Duration{
		"ms": time.Millisecond, "": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
		"w": 7 * 24 * time.Hour, "M": 30 * 24 * time.Hour, "y": 365 * 24 * time.Hour,
	}
	digits := strings.TrimRight(value, "mshdwMy")
	n, err := strconv.ParseUint(digits, 10, 31)
	unit, ok := units[value[len(digits):]]
	if err != nil || !ok {
		return 0, fmt.Errorf("%s is not a time as 10m", quoted(value))
	}
	const day = 24 * time.Hour
	if n > uint64(day/unit) {
		return day, nil
	}
	return time.Duration(n) * unit, nil
}

// authSnippet reads the directives that are about the request to the auth server, as data.
func authSnippet(s *Settings, value string) error {
	directives, err := parseSnippet(value)
	if err != nil {
		return err
	}
	for _, words := range directives {
		name, args := words[0], words[1:]
		switch {
		case name == "proxy_set_header" && len(args) == 2:
			err = s.ext.setHeader(args[0], args[1])
		case name == "auth_request_set" && len(args) == 2:
			err = s.ext.setLocal(args[0], args[1])
		case slices.Contains(harmless, name):
		default:
			err = errors.New("is not understood; only proxy_set_header and auth_request_set are")
		}
		if err != nil {
			return fmt.Errorf("directive %s: %w", quoted(name), err)
		}
	}
	return nil
}

func (e *extAuth) setHeader(name, value string) error {
	if err := copyable(name); err != nil {
		return err
	}
	h := policy.AskHeader{Name: name}
	if value != "" {
		parts, err := parsePattern(strings.ReplaceAll(value, " ", "%20"), nil)
		if err != nil {
			return err
		}
		for i := range parts { // a space is no danger in a header
			if parts[i].Of == policy.PartText {
				parts[i].Text = strings.ReplaceAll(parts[i].Text, "%20", " ")
			}
		}
		h.Value = parts
	}
	e.asked.Headers = append(e.asked.Headers, h)
	return nil
}

// setLocal reads "$name $upstream_http_x": a header of the auth server's answer.
func (e *extAuth) setLocal(name, value string) error {
	local, ok := strings.CutPrefix(name, "$")
	header, isHeader := strings.CutPrefix(value, "$upstream_http_")
	if !ok || !isHeader || !tokenPattern.MatchString(local) || !tokenPattern.MatchString(header) {
		return fmt.Errorf("%s is not a header of the auth server's answer, as $upstream_http_x_user", quoted(value))
	}
	if e.locals == nil {
		e.locals = map[string]string{}
	}
	e.locals[local] = strings.ReplaceAll(header, "_", "-")
	return nil
}

// settleExternal puts together what belongs to auth-url. Without one nobody is asked.
func (s *Settings) settleExternal() {
	e := s.ext
	s.ext = extAuth{}
	if !e.asked.Asks() {
		for _, c := range e.asked.Copy { // of an answer that there is not
			s.Route.RequestHeaders = append(s.Route.RequestHeaders, policy.Header{Name: c.To})
		}
		return
	}
	s.Auth = e.asked
	if len(s.Auth.CacheFor) == 0 { // the default of ingress-nginx
		for _, status := range []int{200, 202, 401} {
			s.Auth.CacheFor = append(s.Auth.CacheFor, policy.CacheTime{Status: status, For: 5 * time.Minute})
		}
	}
	if len(s.Auth.CacheKey) == 0 || e.noCache {
		s.Auth.CacheKey, s.Auth.CacheFor = nil, nil
	}
	if e.signIn == "" {
		return
	}
	pattern, err := parsePattern(signInURL(e.signIn, e.signInParam), e.locals)
	if err != nil {
		s.AuthFault = fmt.Sprintf("annotation %sauth-signin: %v", Prefix, err)
	}
	s.Auth.SignIn = pattern
}

// signInURL adds the place where the client wanted to go, unless it is there already.
func signInURL(page, param string) string {
	if param == "" {
		param = signInParam
	}
	back := param + "=$scheme://$host$escaped_request_uri"
	u, err := url.Parse(page)
	if err != nil { // of a variable in the place of the scheme, or so
		_, query, _ := strings.Cut(page, "?")
		u = &url.URL{RawQuery: query}
	}
	switch query := u.Query(); {
	case query.Get(param) != "":
		return page
	case len(query) > 0:
		return page + "&" + back
	}
	return strings.TrimSuffix(page, "?") + "?" + back
}

// IsAddress says whether a host of a URL is an address.
func IsAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}
