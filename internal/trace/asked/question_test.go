package asked

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, from, want string }{
		{"https://Shop.example.com/a%2Fb?c=d", "", `url https shop.example.com 443 /a%2Fb?c=d`},
		{"http://shop.example.com:8080", "node1", `url http shop.example.com 8080 /`},
		{"https://203.0.113.10/", "", `url https 203.0.113.10 443 / addr 203.0.113.10`},
		{"https://[2001:db8::10]:8443/", "", `url https 2001:db8::10 8443 / addr 2001:db8::10`},
		{"203.0.113.10:443", "", `address 203.0.113.10 443 tcp`},
		{"203.0.113.10:53/udp", "", `address 203.0.113.10 53 udp`},
		{"[2001:db8::10]:53/UDP", "", `address 2001:db8::10 53 udp`},
		{"203.0.113.10", "", `address 203.0.113.10 0 tcp`},
		{"shop/web", "", `service shop/web 0  tcp`},
		{"shop/web:80", "", `service shop/web 80  tcp`},
		{"shop/dns:dns/udp", "", `service shop/dns 0 dns udp`},
		{"svc/web", "", `service default/web 0  tcp`},
		{"svc/shop/web:http", "", `service shop/web 0 http tcp`},
		{"web.shop.svc:80", "", `service shop/web 80  tcp`},
		{"web.shop.svc.cluster.local", "", `service shop/web 0  tcp`},
		{"shop", "", "error"}, {"", "", "error"}, {"shop.example.com/x", "", "error"}, {"ftp://x/", "", "error"},
		{"http://", "", "error"}, {"http://x:99999/", "", "error"}, {"http://web.shop.svc/", "", "error"},
		{"203.0.113.10:0", "", "error"}, {"203.0.113.10:80/icmp", "", "error"}, {"a/b/c", "", "error"},
		{"shop/web:0", "", "error"}, {"shop/web:70000:1", "", "error"}, {"shop/web:80/icmp", "", "error"},
		{"shop/web", "a/b/c", "error"}, {"shop/web", "/b", "error"}, {"shop/web", "a b", "error"},
	} {
		q, err := Parse(c.text, c.from, netip.Addr{})
		got := parsed(q)
		if err != nil {
			if got = "error"; !errors.Is(err, ErrQuestion) {
				t.Errorf("%q: %v", c.text, err)
			}
		}
		if got != c.want {
			t.Errorf("%q from %q is %s (%v), want %s", c.text, c.from, got, err, c.want)
		}
	}
	if _, err := Parse("shop/web", "", netip.MustParseAddr("203.0.113.10")); err == nil {
		t.Error("--via for a Service was taken")
	}
}

func parsed(q Question) string {
	words := []string{string(q.Kind)}
	switch q.Kind {
	case KindURL:
		words = append(words, q.Request.Scheme, q.Request.Host, strconv.Itoa(int(q.Port)), q.Request.Path)
		if q.Addr.IsValid() {
			words = append(words, "addr", q.Addr.String())
		}
	case KindAddress:
		words = append(words, q.Addr.String(), strconv.Itoa(int(q.Port)), q.Protocol)
	case KindService:
		words = append(words, q.Service.String(), strconv.Itoa(int(q.Port)), q.PortName, q.Protocol)
	}
	return strings.Join(words, " ")
}

func TestQuestionJSON(t *testing.T) {
	q, err := Parse("shop/web:80", "", netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(struct {
		Question Question `json:"question"`
	}{q})
	if err != nil || !strings.Contains(string(data), `"service":{"namespace":"shop","name":"web"}`) {
		t.Errorf("%s, %v", data, err)
	}
	var back struct {
		Question Question `json:"question"`
	}
	if json.Unmarshal(data, &back) != nil || back.Question != q {
		t.Errorf("%s is read as %+v", data, back.Question)
	}
}
