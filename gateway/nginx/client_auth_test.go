package nginx

import (
	"strings"
	"testing"
)

func TestClients(t *testing.T) {
	const secret = "auth-tls-secret"
	for name, c := range map[string]struct {
		in     map[string]string // without prefix
		want   string            // the ClientAuth's String
		asks   bool
		closed string // in the message of a Note that closes the paths
	}{
		"nothing":            {},
		"on":                 {map[string]string{secret: "shop/ca"}, "shop/ca:on", true, ""},
		"all":                {map[string]string{secret: "shop/ca", "auth-tls-verify-client": "optional", "auth-tls-verify-depth": "3", "auth-tls-match-cn": "CN=a.*", "auth-tls-error-page": "https://a.test/x", "auth-tls-pass-certificate-to-upstream": "true"}, "shop/ca:optional,depth=3,subject,error-page=302:https://a.test/x,certificate", true, ""},
		"depth 0":            {map[string]string{secret: "shop/ca", "auth-tls-verify-depth": "0"}, "shop/ca:on", true, ""},
		"off":                {map[string]string{secret: "shop/ca", "auth-tls-verify-client": "off"}, "", false, ""},
		"optional alone":     {map[string]string{"auth-tls-verify-client": "optional"}, "", false, ""},
		"on alone":           {map[string]string{"auth-tls-verify-client": "on"}, "", true, ""},
		"name alone":         {map[string]string{"auth-tls-match-cn": "CN=a"}, "", true, ""},
		"no namespace":       {map[string]string{secret: "ca"}, "", true, "NAMESPACE/NAME"},
		"path":               {map[string]string{secret: "shop/../ca"}, "", true, "NAMESPACE/NAME"},
		"mode":               {map[string]string{secret: "shop/ca", "auth-tls-verify-client": "On"}, "", true, "none of on"},
		"depth":              {map[string]string{secret: "shop/ca", "auth-tls-verify-depth": "-1"}, "", true, "not a number"},
		"name":               {map[string]string{secret: "shop/ca", "auth-tls-match-cn": "a"}, "", true, "must begin with CN="},
		"off, and a bad one": {map[string]string{secret: "ca", "auth-tls-verify-client": "off"}, "", true, "NAMESPACE/NAME"},
		"page":               {map[string]string{secret: "shop/ca", "auth-tls-error-page": "/x"}, "shop/ca:on", true, ""},
	} {
		in := map[string]string{}
		for key, value := range c.in {
			in[Prefix+key] = value
		}
		s, notes := Read(in)
		if s.Clients.String() != c.want || s.AsksClients != c.asks {
			t.Errorf("%s: %q, asks %t; want %q, %t", name, s.Clients, s.AsksClients, c.want, c.asks)
		}
		closed := ""
		for _, n := range notes {
			if n.Closed {
				closed += n.Message
			}
		}
		if !strings.Contains(closed, c.closed) || closed != "" && c.closed == "" {
			t.Errorf("%s: closed by %q, want %q", name, closed, c.closed)
		}
	}
}
