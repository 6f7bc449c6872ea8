package nginx

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"hythe.dev/hythe/gateway/policy"
)

// maxTimeout bounds timeouts to what any field of seconds holds: a week.
const maxTimeout = 7 * 24 * time.Hour

// quoted is a value in a message, shortened.
func quoted(value string) string {
	if len(value) > 60 {
		return strconv.Quote(value[:60]) + "…"
	}
	return strconv.Quote(value)
}

// boolean makes a reader of a switch.
func boolean(field func(*Settings) *bool) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		v, err := parseBool(value)
		if err == nil {
			*field(s) = v
		}
		return err
	}
}

func parseBool(value string) (bool, error) {
	v, err := strconv.ParseBool(strings.ToLower(value))
	if err != nil {
		return false, fmt.Errorf(`%s is neither "true" nor "false"`, quoted(value))
	}
	return v, nil
}

// parseSeconds reads a number of seconds. Many write "60s", which nginx takes and ingress-nginx does not.
func parseSeconds(value string) (time.Duration, error) {
	bad := fmt.Errorf(`%s is not a number of seconds from 1 to %d, as "60"`, quoted(value), int(maxTimeout.Seconds()))
	if d, err := time.ParseDuration(value); err == nil && d > 0 && d <= maxTimeout {
		return d, nil
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 || n > uint64(maxTimeout.Seconds()) {
		return 0, bad
	}
	return time.Duration(n) * time.Second, nil
}

// idle reads a timeout between two reads or two writes. Of both the longer one counts: there is one clock for both.
func idle(s *Settings, value string) error {
	d, err := parseSeconds(value)
	if err == nil {
		s.Route.Idle = max(s.Route.Idle, d)
	}
	return err
}

func connectTimeout(s *Settings, value string) error {
	d, err := parseSeconds(value)
	if err == nil {
		s.Backend.ConnectTimeout = d
	}
	return err
}

var sizePattern = regexp.MustCompile(`^([0-9]+)([kmg]?)$`)

// parseSize reads a size as nginx writes it: "8m", "1g", "512k", bytes. 0 stands for no limit.
func parseSize(value string) (uint64, error) {
	bad := fmt.Errorf(`%s is not a size as "8m", "512k", "1g", or "0" for no limit`, quoted(value))
	m := sizePattern.FindStringSubmatch(strings.ToLower(value))
	if m == nil {
		return 0, bad
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	shift := map[string]int{"": 0, "k": 10, "m": 20, "g": 30}[m[2]]
	if err != nil || n > math.MaxInt64>>shift {
		return 0, bad
	}
	return n << shift, nil
}

func bodySize(s *Settings, value string) error {
	n, err := parseSize(value)
	if err == nil {
		s.Route.MaxBody = n
	}
	return err
}

func backendProtocol(s *Settings, value string) error {
	switch strings.ToUpper(value) {
	case "HTTP", "AUTO_HTTP":
		s.Backend.Protocol = policy.HTTP
	case "HTTPS":
		s.Backend.Protocol = policy.HTTPS
	case "GRPC", "H2C":
		s.Backend.Protocol = policy.H2C
	case "GRPCS":
		s.Backend.Protocol = policy.H2
	default:
		return fmt.Errorf("%s is not supported: it must be HTTP, HTTPS, GRPC or GRPCS", quoted(value))
	}
	return nil
}

func secureBackends(s *Settings, value string) error {
	secure, err := parseBool(value)
	if err == nil && secure && s.Backend.Protocol == policy.HTTP {
		s.Backend.Protocol = policy.HTTPS
	}
	return err
}

// sources makes a reader of a list of addresses. An empty list says nothing.
func sources(field func(*policy.Sources) *[]netip.Prefix) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		if value == "" {
			return nil
		}
		list, err := parsePrefixes(value)
		if err == nil {
			f := field(&s.Route.Sources)
			*f = append(*f, list...)
			slices.SortFunc(*f, netip.Prefix.Compare)
			*f = slices.Compact(*f)
		}
		return err
	}
}

func parsePrefixes(value string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			addr, addrErr := netip.ParseAddr(part)
			if addrErr != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("%s is neither an address nor a range as 10.0.0.0/8; separate several by commas", quoted(part))
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if a := prefix.Addr(); a.Is4In6() {
			if prefix.Bits() < 96 {
				return nil, fmt.Errorf("%s is wider than the IPv4 addresses that it maps; write it as an IPv4 range", quoted(part))
			}
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		out = append(out, prefix.Masked())
	}
	if len(out) == 0 {
		return nil, errors.New("it names no address: write ranges as 10.0.0.0/8, separated by commas")
	}
	return out, nil
}

var targetPattern = regexp.MustCompile(`^/[A-Za-z0-9\-._~!&'()*+,;=:@/%$]*$`)

// rewriteTarget reads the path that backends see. It also makes regular expressions of the paths, as in nginx.
func rewriteTarget(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	s.Regex = true // also of a target that cannot be read: its paths are to be closed, not others
	if !targetPattern.MatchString(value) {
		return fmt.Errorf("%s must be a path that begins with / and has no query, as /$2", quoted(value))
	}
	for i := range len(value) {
		if value[i] == '$' && (i+1 == len(value) || value[i+1] < '1' || value[i+1] > '9') {
			return fmt.Errorf("%s has a $ that is not $1 to $9; there are no variables of nginx", quoted(value))
		}
	}
	s.Route.Rewrite = value
	return nil
}

func useRegex(s *Settings, value string) error {
	v, err := parseBool(value)
	s.Regex = s.Regex || v
	return err
}

func sslRedirect(s *Settings, value string) error {
	v, err := parseBool(value)
	s.NoRedirect = err == nil && !v
	return err
}
