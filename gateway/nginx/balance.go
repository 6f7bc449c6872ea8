package nginx

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"hythe.dev/hythe/gateway/policy"
)

func loadBalance(s *Settings, value string) error {
	switch value {
	case "round_robin":
		s.balance = policy.RoundRobin
	case "ewma", "least_conn", "":
		s.balance = policy.LeastRequest
	default:
		return fmt.Errorf(`%s is neither "round_robin" nor "ewma"`, quoted(value))
	}
	return nil
}

var hashVariable = regexp.MustCompile(`\$(\{[a-z0-9_]+\}|[a-z0-9_]+)`)

// hashBy reads a key of variables of nginx. Text around them is the same for all requests, so it decides nothing.
func hashBy(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	var keys []policy.HashKey
	for _, v := range hashVariable.FindAllString(value, -1) {
		k, err := hashKey(strings.Trim(v, "${}"))
		if err != nil {
			return err
		}
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return errors.New("it names no variable, so that all requests would go to one pod; write $request_uri, $remote_addr, or others")
	}
	s.Route.Hash = keys
	return nil
}

func hashKey(variable string) (policy.HashKey, error) {
	switch variable {
	case "request_uri":
		return policy.HashKey{Of: policy.HashURI}, nil
	case "uri", "document_uri":
		return policy.HashKey{Of: policy.HashPath}, nil
	case "host", "http_host":
		return policy.HashKey{Of: policy.HashHost}, nil
	case "remote_addr", "binary_remote_addr", "the_real_ip":
		return policy.HashKey{Of: policy.HashClient}, nil
	}
	for prefix, of := range map[string]policy.HashSource{
		"http_": policy.HashHeader, "cookie_": policy.HashCookie, "arg_": policy.HashQuery,
	} {
		name, ok := strings.CutPrefix(variable, prefix)
		if !ok || name == "" {
			continue
		}
		if of == policy.HashHeader {
			name = strings.ReplaceAll(name, "_", "-")
		}
		return policy.HashKey{Of: of, Name: name}, nil
	}
	return policy.HashKey{}, fmt.Errorf("variable $%s is not known: there are $request_uri, $uri, $host, $remote_addr, $http_NAME, $cookie_NAME and $arg_NAME", variable)
}

// settleBalance gives upstream-hash-by the preference, as nginx does.
func (s *Settings) settleBalance() {
	s.Backend.Balance = s.balance
	if len(s.Route.Hash) > 0 {
		s.Backend.Balance = policy.Hashed
	}
	s.balance = 0
}
