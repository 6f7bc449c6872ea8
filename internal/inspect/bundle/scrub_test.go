package bundle

import (
	"strings"
	"testing"
)

func TestScrub(t *testing.T) {
	const s = "hunter2secretvalue"
	for name, c := range map[string]struct{ in, want string }{
		"private key":          {"a\n-----BEGIN EC PRIVATE KEY-----\n" + s + "\n-----END EC PRIVATE KEY-----\nb", "a\n[removed]\nb"},
		"private key, escaped": {`{"k":"-----BEGIN PRIVATE KEY-----\n` + s + `\n-----END PRIVATE KEY-----\n"}`, `{"k":"[removed]\n"}`},
		"private key, cut off": {"-----BEGIN RSA PRIVATE KEY-----\n" + s, "[removed]"},
		"private key, end":     {s + "\nabcd=\n-----END RSA PRIVATE KEY-----\nb", "[removed]\nb"},
		"base64 of PEM":        {"tls.key: LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCmh1bnRlcg==", "tls.key: [removed]"},
		"header":               {"Authorization: " + s + " x\nnext", "Authorization: [removed]\nnext"},
		"header, JSON":         {`{"cookie":["session=` + s + `"],"b":1}`, `{"cookie":["[removed]"],"b":1}`},
		"header, own":          {"x-api-key: " + s, "x-api-key: [removed]"},
		"scheme":               {`msg="sent Bearer ` + s + `"`, `msg="sent Bearer [removed]"`},
		"web token":            {"got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig_" + s + " end", "got [removed] end"},
		"URL":                  {"https://admin:" + s + "@example.com/x", "https://[removed]@example.com/x"},
		"query":                {"GET /x?token=" + s + "&a=b", "GET /x?token=[removed]&a=b"},
		"assignment":           {"DB_PASSWORD=" + s + " next", "DB_PASSWORD=[removed] next"},
		"JSON":                 {`{"clientSecret": "` + s + `","x":1}`, `{"clientSecret": "[removed]","x":1}`},
		"YAML":                 {"  password: " + s + "\n", "  password: [removed]\n"},
		"YAML, token":          {"token: " + s, "token: [removed]"},
		"longer name":          {"aws_secret_access_key=" + s + " x", "aws_secret_access_key=[removed] x"},
		"short name":           {"pwd=" + s, "pwd=[removed]"},
		"flag":                 {"run --token " + s + " --x", "run --token [removed] --x"},
	} {
		got := string(Scrub([]byte(c.in)))
		if got != c.want || strings.Contains(got, s) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// What people need to find a fault stays.
func TestScrubLeavesTheRest(t *testing.T) {
	for _, text := range []string{
		"Ingress shop/shop: SecretNotFound: Secret shop/gone does not exist; shop.example.com gets the default certificate",
		`{"secret":{"Kind":"Secret","Namespace":"shop","Name":"tls"},"fingerprint":"0123abcd"}`,
		"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
		`time=2026-11-22T12:00:00Z level=WARN msg="no heartbeats" key=192.168.50.11:7472`,
		"hythe_node_dropped_packets_total{reason=\"spoofed\"} 3",
		"frontends4 10.96.0.10 . 6 . 80 : pick4-2",
		"nginx.ingress.kubernetes.io/auth-secret has no effect",
	} {
		if got := string(Scrub([]byte(text))); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
}
