package nginx

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"hythe.dev/hythe/gateway/policy"
)

func parseSwitch(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "on":
		return true, nil
	case "off", "":
		return false, nil
	}
	return false, fmt.Errorf(`%s is neither "on" nor "off"`, quoted(value))
}

// verifyBackend reads whether the certificates of pods are verified. It has an effect with proxy-ssl-secret only, as in nginx;
// without it there is nothing to verify them by, so that must not pass for verified.
func verifyBackend(s *Settings, value string) (err error) {
	s.Upstream.Verify, err = parseSwitch(value)
	return err
}

var (
	secretPattern     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`)
	serverNamePattern = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9.]{0,250}[A-Za-z0-9])?$`)
)

func backendSecret(s *Settings, value string) error {
	if value != "" && !secretPattern.MatchString(value) {
		return fmt.Errorf("%s is not NAMESPACE/NAME of a Secret", quoted(value))
	}
	s.Upstream.Secret = value
	return nil
}

func backendName(s *Settings, value string) error {
	if value != "" && !serverNamePattern.MatchString(value) {
		return fmt.Errorf("%s is no host name; there are no variables of nginx", quoted(value))
	}
	s.Upstream.Name = strings.ToLower(value)
	return nil
}

func backendServerName(s *Settings, value string) (err error) {
	s.Upstream.SendName, err = parseSwitch(value)
	return err
}

// backendVersions reads a list like "TLSv1.2 TLSv1.3".
func backendVersions(s *Settings, value string) error {
	low, high := policy.TLSVersion(0), policy.TLSVersion(0)
	for _, word := range strings.Fields(value) {
		var v policy.TLSVersion
		switch word {
		case "TLSv1.2":
			v = policy.TLS12
		case "TLSv1.3":
			v = policy.TLS13
		case "TLSv1", "TLSv1.1", "SSLv2", "SSLv3":
			continue // broken since long
		default:
			return fmt.Errorf("%s is no protocol: there are TLSv1.2 and TLSv1.3", quoted(word))
		}
		if low == 0 || v < low {
			low = v
		}
		high = max(high, v)
	}
	if value != "" && low == 0 {
		return fmt.Errorf("%s has neither TLSv1.2 nor TLSv1.3, and older ones are not spoken", quoted(value))
	}
	s.Upstream.Lowest, s.Upstream.Highest = low, high
	return nil
}

func backendDepth(s *Settings, value string) error {
	n, err := strconv.ParseUint(value, 10, 8)
	if err != nil || n == 0 || n > 100 {
		return fmt.Errorf(`%s is not a number from 1 to 100, as "1"`, quoted(value))
	}
	s.Upstream.Depth = uint8(n)
	return nil
}
