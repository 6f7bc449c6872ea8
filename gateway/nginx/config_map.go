package nginx

import (
	"fmt"
	"regexp"

	"hythe.dev/hythe/gateway/policy"
)

// customHeaders names a ConfigMap with headers of answers.
func customHeaders(s *Settings, value string) error {
	s.Headers = value
	return configMapName(value)
}

// authProxySetHeaders names a ConfigMap with headers of requests to the auth server.
func authProxySetHeaders(s *Settings, value string) error {
	s.AuthHeaders = value
	return configMapName(value)
}

var objectName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?/)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

func configMapName(value string) error {
	if value != "" && (!objectName.MatchString(value) || len(value) > 320) {
		return fmt.Errorf("%s is not the name of a ConfigMap, as namespace/name", quoted(value))
	}
	return nil
}

// AnswerHeader is an entry of the ConfigMap of custom-headers. Its value has no variables.
func AnswerHeader(name, value string) (policy.Header, error) {
	if _, err := newHeader(name, ""); err != nil {
		return policy.Header{}, fmt.Errorf("has a key that is no header: %w", err)
	}
	for i := range len(value) {
		if value[i] < 0x20 && value[i] != '\t' || value[i] >= 0x7f {
			return policy.Header{}, fmt.Errorf("has a value for %s that is not one line of printable ASCII", quoted(name))
		}
	}
	if value == "" {
		return policy.Header{Name: name}, nil
	}
	return policy.Header{Name: name, Value: policy.Literal(value)}, nil
}

// AskHeader is an entry of the ConfigMap of auth-proxy-set-headers, which may have variables.
func AskHeader(name, value string) (policy.AskHeader, error) {
	var e extAuth
	if err := e.setHeader(name, value); err != nil {
		return policy.AskHeader{}, fmt.Errorf("has an entry that is no header: %w", err)
	}
	return e.asked.Headers[0], nil
}
