package nginx

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// What ingress-nginx answers where annotations say nothing: docs/user-guide/nginx-configuration/annotations.md, "Enable CORS".
const (
	defaultCORSMethods = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
	defaultCORSHeaders = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
	defaultCORSMaxAge  = 1_728_000 * time.Second
)

// corsAsked holds what of CORS differs from the default where it is empty.
type corsAsked struct{ noCredentials, noOrigin bool }

func corsOn(s *Settings, value string) error {
	on, err := parseBool(value)
	if err == nil {
		s.Route.CORS.Enabled = on
	}
	return err
}

// originPattern is an origin with any scheme, whose first label may be a wildcard: https://*.example.com:8080.
var originPattern = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*://)(\*\.)?([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)(:[0-9]+)?$`)

// mostOrigins bounds a list: each some 30 of them are one route more for each path.
const mostOrigins = 200

// longestOrigin is a scheme, a name of DNS (RFC 1035 section 2.3.4) and a port, in bytes: each is an expression of Envoy's.
const longestOrigin = 300

// corsOrigins reads a list of origins. One that cannot be read is not let in, and neither are all others then.
func corsOrigins(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	c := &s.Route.CORS
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if part == "*" {
			c.AnyOrigin = true
			continue
		}
		m := originPattern.FindStringSubmatch(part)
		if m == nil || len(part) > longestOrigin {
			s.cors.noOrigin = true
			return fmt.Errorf("%s is not an origin as https://app.example.com or https://*.example.com; no other origin is allowed", quoted(part))
		}
		wild := ""
		if m[2] != "" {
			wild = `[A-Za-z0-9_-]+\.`
		}
		c.Origins = append(c.Origins, "(?i:"+regexp.QuoteMeta(m[1])+wild+regexp.QuoteMeta(m[3]+m[4])+")")
	}
	if len(c.Origins) > mostOrigins {
		s.cors.noOrigin = true
		return fmt.Errorf("it has %d origins, at most %d can be compared; none is allowed. Name a wildcard as https://*.example.com", len(c.Origins), mostOrigins)
	}
	if !c.AnyOrigin && len(c.Origins) == 0 {
		s.cors.noOrigin = true
		return errors.New("it names no origin; none is allowed")
	}
	return nil
}

var corsList = regexp.MustCompile(`^[A-Za-z0-9_*-]+(?:\s*,\s*[A-Za-z0-9_*-]+)*$`)

func corsWords(field func(*Settings) *string) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if value == "" {
			return nil
		}
		if !corsList.MatchString(value) || len(value) > 2000 {
			return fmt.Errorf("%s is not a list of names, separated by commas", quoted(value))
		}
		*field(s) = value
		return nil
	}
}

func corsCredentials(s *Settings, value string) error {
	on, err := parseBool(value)
	s.cors.noCredentials = err != nil || !on // what cannot be read allows nothing
	return err
}

func corsMaxAge(s *Settings, value string) error {
	d, err := parseSeconds(value)
	if err == nil {
		s.Route.CORS.MaxAge = d
	}
	return err
}

func (s *Settings) settleCORS() {
	c, asked := &s.Route.CORS, s.cors
	s.cors = corsAsked{}
	if !c.Enabled || asked.noOrigin {
		*c = (&Settings{}).Route.CORS
		return
	}
	c.AnyOrigin = c.AnyOrigin || len(c.Origins) == 0
	if c.AnyOrigin {
		c.Origins = nil
	}
	c.Credentials = !asked.noCredentials
	if c.Methods == "" {
		c.Methods = defaultCORSMethods
	}
	if c.Headers == "" {
		c.Headers = defaultCORSHeaders
	}
	if c.MaxAge == 0 {
		c.MaxAge = defaultCORSMaxAge
	}
}
