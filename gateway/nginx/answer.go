package nginx

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"hythe.dev/hythe/gateway/policy"
)

// ErrorPages is who answers in the place of a backend.
type ErrorPages struct {
	// Service, of the Ingress's namespace, answers where the backend has no pod, and by its first port.
	Service string
	// Statuses are those of answers that are replaced by the Service's. They are sorted, without repetition.
	Statuses []uint32
}

func defaultBackend(s *Settings, value string) error {
	if value != "" && !servicePattern.MatchString(value) {
		return fmt.Errorf("%s is not the name of a Service of the same namespace", quoted(value))
	}
	s.ErrorPages.Service = value
	return nil
}

var servicePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// mostStatuses bounds custom-http-errors: each one costs half a KiB in each route.
const mostStatuses = 32

func customErrors(s *Settings, value string) error {
	var out []uint32
	for word := range strings.SplitSeq(value, ",") {
		word = strings.TrimSpace(word)
		n, err := strconv.ParseUint(word, 10, 16)
		switch {
		case word == "":
			continue
		case err != nil || n < 400 || n > 599:
			return fmt.Errorf("%s is not a status from 400 to 599; separate several by commas", quoted(word))
		}
		out = append(out, uint32(n))
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > mostStatuses {
		return fmt.Errorf("it has %d statuses, and %d at most can be replaced", len(out), mostStatuses)
	}
	s.ErrorPages.Statuses = out
	return nil
}

// settleErrorPages leaves no statuses that nobody answers.
func (s *Settings) settleErrorPages() {
	if s.keepErrors || s.noErrors || s.ErrorPages.Service == "" {
		s.ErrorPages.Statuses = nil
	}
	s.keepErrors, s.noErrors = false, false
}

// twoWords reads "FROM TO". off and nothing mean nothing.
func twoWords(value string, pattern *regexp.Regexp) (policy.Replacement, error) {
	words := strings.Fields(value)
	switch {
	case len(words) == 0 || len(words) == 1 && words[0] == "off":
		return policy.Replacement{}, nil
	case strings.HasPrefix(words[0], "~"):
		return policy.Replacement{}, fmt.Errorf("%s is a regular expression, which is not understood", quoted(words[0]))
	case len(words) != 2:
		return policy.Replacement{}, fmt.Errorf(`%s must have two words, what is replaced and by what, or be "off"`, quoted(value))
	}
	for _, w := range words {
		if len(w) > 1000 || !pattern.MatchString(w) {
			return policy.Replacement{}, fmt.Errorf("%s is not understood; there are no variables of nginx", quoted(w))
		}
	}
	return policy.Replacement{From: words[0], To: words[1]}, nil
}

func cookieDomain(s *Settings, value string) (err error) {
	r, err := twoWords(value, domainPattern)
	if err == nil {
		s.Route.Answers.CookieDomain = policy.Replacement{
			From: strings.ToLower(strings.TrimPrefix(r.From, ".")), To: strings.TrimPrefix(r.To, "."),
		}
	}
	return err
}

var cookiePathPattern = regexp.MustCompile(`^/[A-Za-z0-9\-._~!&'()*+,=:@/%]*$`)

func cookiePath(s *Settings, value string) (err error) {
	r, err := twoWords(value, cookiePathPattern)
	if err == nil {
		s.Route.Answers.CookiePath = r
	}
	return err
}

func accessLog(s *Settings, value string) error {
	on, err := parseBool(value)
	s.Route.Quiet = err == nil && !on
	return err
}

func enableErrors(s *Settings, value string) error {
	on, err := parseBool(value)
	s.noErrors = err == nil && !on
	return err
}
