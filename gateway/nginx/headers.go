package nginx

import (
	"fmt"
	"regexp"
)

var vhostPattern = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:[0-9]{1,5})?$`)

// upstreamVhost reads the Host header that backends see.
func upstreamVhost(s *Settings, value string) error {
	switch {
	case value == "" || value == "$host" || value == "$http_host" || value == "$best_http_host":
		return nil // as it is
	case len(value) > 253 || !vhostPattern.MatchString(value):
		return fmt.Errorf("%s must be a host name, with a port or without; there are no variables of nginx", quoted(value))
	}
	s.Route.HostHeader = value
	return nil
}
