package nginx

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// unlimitedTries is what "0", no limit, means here.
const unlimitedTries = 10

// nextUpstream reads when a request goes to another pod.
func nextUpstream(s *Settings, value string) error {
	r := s.Route.Retry
	r.Off, r.Reset, r.Unsafe, r.Statuses = false, false, false, nil
	for _, word := range strings.FieldsFunc(value, func(c rune) bool { return c == ' ' || c == ',' }) {
		status, isStatus := strings.CutPrefix(word, "http_")
		switch {
		case word == "off":
			r.Off = true
		case word == "error" || word == "invalid_header":
			r.Reset = true
		case word == "timeout": // of the connection: always tried again
		case word == "non_idempotent":
			r.Unsafe = true
		case isStatus && slices.Contains([]string{"500", "502", "503", "504", "403", "404", "429"}, status):
			n, _ := strconv.ParseUint(status, 10, 32)
			r.Statuses = append(r.Statuses, uint32(n))
		default:
			return fmt.Errorf("%s is not known: there are error, timeout, invalid_header, http_500, http_502, http_503, http_504, http_403, http_404, http_429, non_idempotent and off", quoted(word))
		}
	}
	if r.Off {
		r.Reset, r.Unsafe, r.Statuses = false, false, nil
	}
	slices.Sort(r.Statuses)
	r.Statuses = slices.Compact(r.Statuses)
	s.Route.Retry = r
	return nil
}

func nextTries(s *Settings, value string) error {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return fmt.Errorf(`%s is not a number of tries, as "3"`, quoted(value))
	}
	s.Route.Retry.Tries = uint32(min(n, unlimitedTries))
	if n == 0 {
		s.Route.Retry.Tries = unlimitedTries
	}
	return nil
}
