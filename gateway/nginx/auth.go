package nginx

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// defaultRealm is ingress-nginx' own.
const defaultRealm = "Authentication Required"

// A BasicAuth asks for a user and a password (RFC 7617).
type BasicAuth struct {
	Enabled bool
	// Secret is its name, with its namespace before a slash where it is another one than the Ingress's.
	Secret string
	// Map says that the Secret has a key for each user, with the hash; otherwise its key auth is a file of htpasswd.
	Map   bool
	Realm string
}

func authType(s *Settings, value string) error {
	switch value {
	case "basic":
		s.Basic.Enabled = true
		return nil
	case "":
		return nil
	case "digest":
		return errors.New("digest is not supported, since it needs passwords that can be read; use basic with https")
	}
	return fmt.Errorf("%s is not supported: it must be basic", quoted(value))
}

func authSecret(s *Settings, value string) error {
	s.Basic.Secret = value
	return nil
}

func authSecretType(s *Settings, value string) error {
	switch value {
	case "auth-file", "":
	case "auth-map":
		s.Basic.Map = true
	default:
		return fmt.Errorf("%s is neither auth-file nor auth-map", quoted(value))
	}
	return nil
}

var realmPattern = regexp.MustCompile(`^[ !#-\[\]-~]*$`)

func authRealm(s *Settings, value string) error {
	if len(value) > 200 || !realmPattern.MatchString(value) {
		return fmt.Errorf("%s must be of printable ASCII without quotes and backslashes", quoted(value))
	}
	s.Basic.Realm = value
	return nil
}

func satisfy(s *Settings, value string) error {
	switch strings.ToLower(value) {
	case "any":
		s.Route.SatisfyAny = true
	case "all", "":
	default:
		return fmt.Errorf(`%s is neither "all" nor "any"; both are needed`, quoted(value))
	}
	return nil
}

func (s *Settings) settleAuth() {
	if s.Basic.Realm == "" {
		s.Basic.Realm = defaultRealm
	}
	if !s.Basic.Enabled {
		s.Basic = BasicAuth{}
	}
	// Where there is one way to come in, it is needed.
	ways := 0
	for _, way := range []bool{s.Basic.Enabled, s.Auth.Asks(), len(s.Route.Sources.Allow) > 0} {
		if way {
			ways++
		}
	}
	s.Route.SatisfyAny = s.Route.SatisfyAny && ways > 1
}
