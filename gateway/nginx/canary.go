package nginx

import (
	"fmt"
	"regexp"
	"strconv"
)

// mostWeight bounds canary-weight-total: Envoy counts in millionths.
const mostWeight = 1_000_000

// tokenPattern is what the name of a header or cookie may be (RFC 9110 section 5.6.2).
var tokenPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

func parseToken(value string) (string, error) {
	if len(value) > 200 || !tokenPattern.MatchString(value) {
		return "", fmt.Errorf("%s is no name of a header or cookie", quoted(value))
	}
	return value, nil
}

func canaryHeader(s *Settings, value string) (err error) {
	s.CanaryBy.Header, err = parseToken(value)
	return err
}

func canaryCookie(s *Settings, value string) (err error) {
	s.CanaryBy.Cookie, err = parseToken(value)
	return err
}

func canaryValue(s *Settings, value string) error {
	if len(value) > 1000 {
		return fmt.Errorf("%s is too long", quoted(value))
	}
	s.CanaryBy.Value = value
	return nil
}

// canaryPattern reads an expression that is searched in the header's value. A bad one takes no request, as in nginx.
func canaryPattern(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	if _, err := regexp.Compile(value); err != nil || len(value) > 1000 {
		s.badPattern = true
		return fmt.Errorf("%s is not a regular expression in RE2 syntax, or too long", quoted(value))
	}
	s.CanaryBy.Pattern = value
	return nil
}

func canaryWeight(s *Settings, value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n > mostWeight {
		return fmt.Errorf(`%s is not a weight from 0 to canary-weight-total, as "10"`, quoted(value))
	}
	s.CanaryBy.Weight = uint32(n)
	return nil
}

func canaryTotal(s *Settings, value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 || n > mostWeight {
		return fmt.Errorf(`%s is not a number from 1 to %d, as "100"`, quoted(value), mostWeight)
	}
	s.CanaryBy.Total = uint32(n)
	return nil
}

func canaryAffinity(s *Settings, value string) error {
	switch value {
	case "sticky", "":
		s.CanaryBy.Free = false
	case "legacy":
		s.CanaryBy.Free = true
	default:
		return fmt.Errorf(`%s is neither "sticky" nor "legacy"`, quoted(value))
	}
	return nil
}

// settleCanary decides what the annotations of canaries say together.
func (s *Settings) settleCanary() {
	c := &s.CanaryBy
	if !s.Canary {
		c.Header, c.Value, c.Pattern, c.Cookie, c.Weight, c.Total, c.Free = "", "", "", "", 0, 0, false
		return
	}
	if c.Total == 0 {
		c.Total = 100
	}
	c.Weight = min(c.Weight, c.Total)
	if c.Value != "" {
		c.Pattern = ""
	} else if s.badPattern {
		c.Header = ""
	}
	s.badPattern = false
}
