package nginx

import (
	"fmt"
	"strconv"
	"strings"

	"hythe.dev/hythe/gateway/policy"
)

// clientsAsked is what the annotations auth-tls-* say, before they are put together.
type clientsAsked struct {
	off, on, broken bool
}

// clients makes a reader of one of these: what cannot be read closes the whole host, and not only its own paths.
func clients(read func(s *Settings, value string) error) func(*Settings, string) error {
	return func(s *Settings, value string) error {
		err := read(s, value)
		if err != nil {
			s.clients.broken = true
		}
		return err
	}
}

func clientSecret(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	s.AsksClients = true
	if !secretPattern.MatchString(value) {
		return fmt.Errorf("%s is not NAMESPACE/NAME of a Secret", quoted(value))
	}
	s.Clients.Secret = value
	return nil
}

func clientMode(s *Settings, value string) error {
	switch value {
	case "":
	case "on":
		s.clients.on = true
	case "off":
		s.clients.off = true
	case "optional":
		s.Clients.Mode = policy.ClientOptional
	case "optional_no_ca":
		s.Clients.Mode = policy.ClientUntrusted
	default:
		return fmt.Errorf("%s is none of on, off, optional and optional_no_ca", quoted(value))
	}
	return nil
}

func clientDepth(s *Settings, value string) error {
	n, err := strconv.ParseUint(value, 10, 8)
	if err != nil || n > 90 {
		return fmt.Errorf(`%s is not a number from 1 to 90, as "1"`, quoted(value))
	}
	s.Clients.Depth = uint8(n) // 0 is the default, as in nginx
	return nil
}

// clientName reads what the common name must be. nginx looks for the expression anywhere in the subject, so that CN=ann lets
// in CN=anna, and who may choose an organisation for his certificate can call that CN=ann.
func clientName(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	expression, ok := strings.CutPrefix(strings.TrimPrefix(value, "^"), "CN=")
	if !ok || expression == "" {
		return fmt.Errorf("%s must begin with CN=, as CN=ann or CN=(ann|bob)", quoted(value))
	}
	if strings.HasSuffix(expression, "$") && !strings.HasSuffix(expression, `\$`) {
		expression = expression[:len(expression)-1]
	}
	s.Clients.Subject = expression
	return nil
}

func clientErrorPage(s *Settings, value string) error {
	if value == "" {
		return nil
	}
	page, err := parseRedirect(value)
	if err != nil || page.Host == "" { // a page of the same host would send them there again
		return fmt.Errorf("%s is not a URL of another host, as https://example.com/certificates; clients without a certificate are answered 400", quoted(value))
	}
	page.Code = 302
	s.Clients.ErrorPage = page
	return nil
}

// settleClients leaves AsksClients without a Secret where certificates are asked for and it is not clear which.
func (s *Settings) settleClients() {
	asked := s.clients
	s.clients = clientsAsked{}
	switch {
	case asked.broken:
		s.Clients, s.AsksClients = policy.ClientAuth{}, true
	case asked.off:
		s.Clients, s.AsksClients = policy.ClientAuth{}, false
	case s.Clients.Secret == "":
		s.AsksClients = asked.on || s.Clients.Subject != ""
		s.Clients = policy.ClientAuth{}
	}
}
