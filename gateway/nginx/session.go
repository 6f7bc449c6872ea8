package nginx

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/gateway/policy"
)

// defaultCookie is ingress-nginx' name for the cookie of a session.
const defaultCookie = "INGRESSCOOKIE"

func affinity(s *Settings, value string) error {
	if value != "" && value != "cookie" {
		return fmt.Errorf(`%s is not supported: it must be "cookie"`, quoted(value))
	}
	s.affinity = value != ""
	return nil
}

func affinityMode(_ *Settings, value string) error {
	switch value {
	case "", "balanced", "persistent":
		return nil
	}
	return fmt.Errorf(`%s is neither "balanced" nor "persistent"`, quoted(value))
}

func sessionName(s *Settings, value string) (err error) {
	s.Route.Session.Cookie, err = parseToken(value)
	return err
}

// attributePattern keeps the end of an attribute out of it.
var attributePattern = regexp.MustCompile(`^[A-Za-z0-9._~!$&'()*+,=:@/%-]*$`)

func sessionPath(s *Settings, value string) error {
	if value != "" && (value[0] != '/' || !attributePattern.MatchString(value)) {
		return fmt.Errorf("%s is not a path that begins with /", quoted(value))
	}
	s.Route.Session.Path = value
	return nil
}

var domainPattern = regexp.MustCompile(`^\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$`)

func sessionDomain(s *Settings, value string) error {
	if value != "" && !domainPattern.MatchString(value) {
		return fmt.Errorf("%s is not a domain name", quoted(value))
	}
	s.Route.Session.Domain = value
	return nil
}

// sessionAge reads a number of seconds. Of session-cookie-max-age and session-cookie-expires browsers follow the first.
func sessionAge(field func(*Settings) *time.Duration) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return fmt.Errorf(`%s is not a number of seconds, as "3600"`, quoted(value))
		}
		*field(s) = max(0, time.Duration(n)*time.Second)
		return nil
	}
}

func sessionSameSite(s *Settings, value string) error {
	for _, known := range []string{"", "None", "Lax", "Strict"} {
		if strings.EqualFold(known, value) {
			s.Route.Session.SameSite = known
			return nil
		}
	}
	return fmt.Errorf("%s is not None, Lax or Strict", quoted(value))
}

// settleSession leaves no settings of a cookie that is not asked for.
func (s *Settings) settleSession() {
	session := &s.Route.Session
	switch {
	case !s.affinity:
		*session = policy.Session{}
	case session.Cookie == "":
		session.Cookie = defaultCookie
	}
	if s.affinity && session.MaxAge == 0 {
		session.MaxAge = s.expires
	}
	s.affinity, s.expires = false, 0
}
