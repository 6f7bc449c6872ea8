package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// Listen is how clients reach the gateway, for all hosts. To change it changes the listeners. Prefixes are sorted.
type Listen struct {
	// ProxyProtocol are the load balancers of which the PROXY protocol is expected. If there are any, nobody else may speak it.
	ProxyProtocol []netip.Prefix
	// TrustedProxies are those whose X-Forwarded-For and X-Forwarded-Proto are believed.
	TrustedProxies []netip.Prefix
	// HTTP3 is the port of UDP at which clients find HTTP/3; 0 without it.
	HTTP3 uint16
	// NoGRPCWeb hands gRPC-Web on as it is, also to pods that speak gRPC.
	NoGRPCWeb bool
}

// String is " proxy-protocol=10.0.0.0/8 trusted-proxies=192.0.2.1/32 http3=443"; empty for the zero value.
func (l Listen) String() string {
	out := ""
	list := func(name string, prefixes []netip.Prefix) {
		if len(prefixes) > 0 {
			out += " " + name + "=" + strings.Trim(strings.ReplaceAll(fmt.Sprint(prefixes), " ", ","), "[]")
		}
	}
	list("proxy-protocol", l.ProxyProtocol)
	list("trusted-proxies", l.TrustedProxies)
	if l.HTTP3 != 0 {
		out += fmt.Sprintf(" http3=%d", l.HTTP3)
	}
	if l.NoGRPCWeb {
		out += " no-grpc-web"
	}
	return out
}

// ParsePrefix reads "10.0.0.0/8", or an address, which stands for itself.
func ParsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a range as 10.0.0.0/8", text)
	}
	return p.Masked(), nil
}

// buildListen adds to what flags say what a GatewayConfig does. A range that cannot be read is left out: nobody is believed by it.
func buildListen(flags Listen, asked v1alpha1.Listeners, from string) (Listen, []model.Problem) {
	ref := model.ObjectRef{Kind: "GatewayConfig", Name: from}
	var problems []model.Problem
	read := func(field string, flags []netip.Prefix, texts []string) []netip.Prefix {
		out := slices.Clone(flags)
		for _, text := range texts {
			p, err := ParsePrefix(text)
			switch {
			case err != nil:
				problems = append(problems, model.Problemf(ref, "InvalidListener", "spec.listeners.%s: %s is neither an address nor a range as 10.0.0.0/8; it has no effect",
					field, quote(text)))
				continue
			case p.Bits() == 0:
				problems = append(problems, model.Problemf(ref, "TrustsEverybody", "spec.listeners.%s: %s lets every client say what address it has; name your proxies alone",
					field, quote(text)))
			}
			out = append(out, p)
		}
		slices.SortFunc(out, netip.Prefix.Compare)
		return slices.Compact(out)
	}
	out := Listen{
		ProxyProtocol:  read("proxyProtocolFrom", flags.ProxyProtocol, asked.ProxyProtocolFrom),
		TrustedProxies: read("trustedProxies", flags.TrustedProxies, asked.TrustedProxies),
		HTTP3:          flags.HTTP3,
		NoGRPCWeb:      asked.GRPCWeb != nil && !*asked.GRPCWeb,
	}
	if h := asked.HTTP3; h != nil {
		if out.HTTP3 = uint16(cmp.Or(h.Port, 443)); h.Port < 0 || h.Port > 65535 {
			out.HTTP3 = 0
			problems = append(problems, model.Problemf(ref, "InvalidListener", "spec.listeners.http3.port %d is no port; there is no HTTP/3", h.Port))
		}
	}
	return out, problems
}
