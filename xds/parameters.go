package xds

import (
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"hythe.dev/hythe/gateway"
)

// mostOfExpression is how many bytes of paths stand in one expression: Envoy takes programs of 2,000 instructions.
const mostOfExpression = 500

// parameters answers 400 where a parameter of a path element (RFC 3986 section 3.3) hides from which route a path is:
// "/admin;x" is not below "/admin", so "/" would serve it, but Java servers drop ";x" before they look. Elsewhere, as in
// "/page;jsessionid=1", parameters are left alone.
func parameters(h gateway.Host) []*routev3.Route {
	plain, folded, above := hidden(h)
	var alternatives []string
	for _, p := range plain {
		alternatives = append(alternatives, regexp.QuoteMeta(p)+parameter)
	}
	for _, p := range folded {
		alternatives = append(alternatives, "(?i:"+regexp.QuoteMeta(p)+")"+parameter)
	}
	for _, p := range above {
		// An element that is nothing but a parameter is none for those who drop it: "/;x/admin".
		alternatives = append(alternatives, regexp.QuoteMeta(p)+"/"+parameter+"[^/]*/")
	}
	var out []*routev3.Route
	for len(alternatives) > 0 {
		n, size := 0, 0
		for ; n < len(alternatives) && (n == 0 || size+len(alternatives[n]) <= mostOfExpression); n++ {
			size += len(alternatives[n])
		}
		out = append(out, &routev3.Route{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{
				SafeRegex: &matcherv3.RegexMatcher{Regex: "(?:" + strings.Join(alternatives[:n], "|") + ").*"},
			}},
			Action: direct(400),
		})
		alternatives = alternatives[n:]
	}
	return out
}

// parameter begins one; escaped, too, for those who unescape first.
const parameter = "(?:;|%3[Bb])"

// hidden are the paths in front of which a wider route would serve a path with a parameter: those of routes with all that
// is above them, of regular expressions without regard to case, and what is above them without themselves.
func hidden(h gateway.Host) (plain, folded, above []string) {
	plainSet, foldedSet, aboveSet := map[string]bool{}, map[string]bool{}, map[string]bool{}
	served := servedBy(h.Routes)
	for _, r := range h.Routes {
		path, set := strings.TrimRight(CanonicalPath(r.Path), "/"), plainSet
		if r.Match == gateway.Regex {
			path, set = literalElements(r.Pattern), foldedSet
		}
		for path != "" && len(path) < mostOfExpression {
			parent := path[:max(0, strings.LastIndexByte(path, '/'))]
			takes := r.Match == gateway.Regex && Takes(r, path+";x") // it says itself what it thinks of them
			if served.below(parent) && !takes {
				set[path], aboveSet[parent] = true, true
			}
			path = parent
		}
	}
	return slices.Sorted(maps.Keys(plainSet)), slices.Sorted(maps.Keys(foldedSet)), slices.Sorted(maps.Keys(aboveSet))
}

// A served says below which paths, without a final slash, a backend gets requests.
type served struct {
	all  bool // by a regular expression, or below "/"
	from map[string]bool
}

func servedBy(routes []gateway.Route) served {
	s := served{from: map[string]bool{}}
	for _, r := range routes {
		if r.Backend == "" || r.Match == gateway.Exact {
			continue
		}
		own := strings.TrimRight(CanonicalPath(r.Path), "/")
		s.all = s.all || r.Match == gateway.Regex || own == ""
		s.from[own] = true
	}
	return s
}

// below reports whether a backend gets what is below a path.
func (s served) below(path string) bool {
	for ; !s.all && path != ""; path = path[:max(0, strings.LastIndexByte(path, '/'))] {
		if s.from[path] {
			return true
		}
	}
	return s.all
}

// literalElements are the elements with which all paths of a regular expression begin.
func literalElements(expression string) string {
	re, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return ""
	}
	text, rest := "", []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		rest = re.Sub
	}
	for len(rest) > 0 && rest[0].Op == syntax.OpLiteral {
		text, rest = text+string(rest[0].Rune), rest[1:]
	}
	if len(rest) == 0 || endsElement(rest[0]) {
		return strings.TrimRight(text, "/")
	}
	return text[:max(0, strings.LastIndexByte(text, '/'))]
}

// endsElement reports whether an expression begins with the end of an element, as "(/|$)" does.
func endsElement(re *syntax.Regexp) bool {
	for re.Op == syntax.OpCapture || re.Op == syntax.OpConcat {
		re = re.Sub[0]
	}
	switch re.Op {
	case syntax.OpEndText, syntax.OpEndLine:
		return true
	case syntax.OpLiteral:
		return re.Rune[0] == '/'
	case syntax.OpAlternate:
		return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !endsElement(sub) })
	}
	return false
}
