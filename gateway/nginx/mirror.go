package nginx

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Mirror is the Service that gets a copy of each request, whose answers nobody sees.
type Mirror struct {
	// Service is empty for no mirror; Namespace is empty for that of the Ingress.
	Service, Namespace string
	Port               uint16
	TLS                bool
	// Host is the Host header that it gets.
	Host string
}

var mirrorPattern = regexp.MustCompile(`^(https?)://([a-z0-9.-]+)(?::([0-9]+))?(?:/?\$request_uri|/)?$`)

// mirrorTarget reads the URL of a Service of the cluster. Any other server would get all requests, with their cookies.
func mirrorTarget(s *Settings, value string) error {
	if value == "" || value == "off" {
		return nil
	}
	m := mirrorPattern.FindStringSubmatch(value)
	if m == nil {
		return fmt.Errorf("%s must be the URL of a Service without a path of its own, as http://web.shop.svc.cluster.local:8080$request_uri", quoted(value))
	}
	mirror := Mirror{TLS: m[1] == "https", Host: m[2], Port: 80}
	if mirror.TLS {
		mirror.Port = 443
	}
	if m[3] != "" {
		n, err := strconv.ParseUint(m[3], 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%s has no valid port", quoted(value))
		}
		mirror.Port = uint16(n)
	}
	labels := strings.Split(strings.TrimSuffix(strings.TrimSuffix(m[2], ".cluster.local"), ".svc"), ".")
	if len(labels) > 2 || labels[0] == "" {
		return fmt.Errorf("%s is not a Service of the cluster; make a Service with EndpointSlices for a server elsewhere", quoted(value))
	}
	mirror.Service = labels[0]
	if len(labels) == 2 {
		mirror.Namespace = labels[1]
	}
	s.Mirror.Service, s.Mirror.Namespace, s.Mirror.Port, s.Mirror.TLS = mirror.Service, mirror.Namespace, mirror.Port, mirror.TLS
	if s.Mirror.Host == "" { // mirror-host is read before
		s.Mirror.Host = mirror.Host
	}
	return nil
}

func mirrorHost(s *Settings, value string) error {
	if !domainPattern.MatchString(value) {
		return fmt.Errorf("%s is not a host name", quoted(value))
	}
	s.Mirror.Host = value
	return nil
}

func mirrorBody(s *Settings, value string) error {
	switch strings.ToLower(value) {
	case "on", "true", "":
		return nil
	case "off", "false":
		s.noMirror = true
		return errors.New("requests cannot be mirrored without their bodies, and are not mirrored at all; take the annotation away, or mirror-target")
	}
	return fmt.Errorf(`%s is neither "on" nor "off"`, quoted(value))
}

// settleMirror mirrors nothing where a body must not be seen.
func (s *Settings) settleMirror() {
	if s.noMirror || s.Mirror.Service == "" {
		s.Mirror = Mirror{}
	}
	s.noMirror = false
}
