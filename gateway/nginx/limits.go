package nginx

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"

	"hythe.dev/hythe/gateway/policy"
)

// mostRequests bounds a rate, so that its bucket fits into what Envoy counts in.
const mostRequests = 1_000_000

// limit makes a reader of a number of requests. 0 stands for no limit.
func limit(field func(*policy.Limits) *uint32) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n > mostRequests {
			return fmt.Errorf(`%s is not a number from 0 to %d, as "10"`, quoted(value), mostRequests)
		}
		*field(&s.Route.Limits) = uint32(n)
		return nil
	}
}

func burst(s *Settings, value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n == 0 || n > 1000 {
		return fmt.Errorf(`%s is not a number from 1 to 1000, as "5"`, quoted(value))
	}
	s.Route.Limits.Burst = uint32(n)
	return nil
}

func limitExempt(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	list, err := parsePrefixes(value)
	if err == nil {
		list = append(s.Route.Limits.Exempt, list...)
		slices.SortFunc(list, netip.Prefix.Compare)
		s.Route.Limits.Exempt = slices.Compact(list)
	}
	return err
}

// bandwidth reads KiB in a second.
func bandwidth(s *Settings, value string) error {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil || n > math.MaxUint32 {
		return fmt.Errorf(`%s is not a number of KiB in a second, as "100"`, quoted(value))
	}
	s.Route.Limits.Bandwidth = n
	return nil
}

// settleLimits leaves nothing of limits that are not asked for.
func (s *Settings) settleLimits() {
	if l := &s.Route.Limits; !l.Rated() {
		l.Burst, l.Exempt = 0, nil
	}
}
