package main

import (
	"fmt"
	"net/netip"

	"github.com/spf13/pflag"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/xds"
)

// listenTexts are the flags that say how clients reach the gateway.
type listenTexts struct {
	proxyProtocolFrom, trustedProxies []string
	tcpServices, udpServices          string
	portOffset                        int
	http3                             uint16
}

func (l *listenTexts) addFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&l.proxyProtocolFrom, "proxy-protocol-from", nil,
		"address or CIDR of load balancers that begin connections with the PROXY protocol; who does so from elsewhere is refused; may be repeated")
	f.StringArrayVar(&l.trustedProxies, "trusted-proxy", nil,
		"address or CIDR of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; may be repeated")
	f.Uint16Var(&l.http3, "http3", 0, "serve HTTP/3, and tell clients to find it at this port of UDP; Envoy listens on the port for https; 0 for none")
	f.StringVar(&l.tcpServices, "tcp-services-configmap", "",
		"NAMESPACE/NAME of a ConfigMap of TCP ports that lead to Services, as ingress-nginx has it; needs --config-maps")
	f.StringVar(&l.udpServices, "udp-services-configmap", "", "the same for UDP")
	f.IntVar(&l.portOffset, "port-offset", xds.DefaultPortOffset,
		"what Envoy adds to such ports below it, to listen: those below 1024 need a right, and others may be its own; 0 for nothing")
}

func (l *listenTexts) set(g *gatewayProcess) error {
	var err error
	if g.settings.Listen, err = l.parse(); err != nil {
		return err
	}
	for flag, list := range map[string]struct {
		text string
		to   *model.Key
	}{
		"tcp-services-configmap": {l.tcpServices, &g.settings.TCPServices},
		"udp-services-configmap": {l.udpServices, &g.settings.UDPServices},
	} {
		if list.text == "" {
			continue
		}
		if *list.to, err = parseKey(list.text); err != nil {
			return fmt.Errorf("flag --%s: %w", flag, err)
		}
		if !g.configMaps {
			return fmt.Errorf("flag --%s needs --config-maps", flag)
		}
	}
	if g.xds.PortOffset = l.portOffset; l.portOffset <= 0 {
		g.xds.PortOffset = -1
	}
	return nil
}

func (l *listenTexts) parse() (gateway.Listen, error) {
	out := gateway.Listen{HTTP3: l.http3}
	for flag, list := range map[string]struct {
		texts []string
		to    *[]netip.Prefix
	}{
		"proxy-protocol-from": {l.proxyProtocolFrom, &out.ProxyProtocol},
		"trusted-proxy":       {l.trustedProxies, &out.TrustedProxies},
	} {
		for _, text := range list.texts {
			p, err := gateway.ParsePrefix(text)
			if err != nil {
				return gateway.Listen{}, fmt.Errorf("flag --%s: %w", flag, err)
			}
			*list.to = append(*list.to, p)
		}
	}
	return out, nil
}
