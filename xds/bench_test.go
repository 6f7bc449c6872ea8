package xds_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/xds"
)

// manyHosts is a Config of n hosts of two routes, each with a Service and, if chain is set, a certificate of its own.
func manyHosts(n int, chain, key []byte) gateway.Config {
	c := gateway.Config{Hosts: []gateway.Host{{Name: gateway.CatchAll, Certificate: gateway.DefaultCertificateName}}}
	for i := range n {
		name := fmt.Sprintf("team/app-%05d", i)
		host := gateway.Host{Name: fmt.Sprintf("app-%05d.example.com", i), Certificate: name, Routes: []gateway.Route{
			{Match: gateway.Prefix, Path: "/api", Backend: name + ":http"},
			{Match: gateway.Prefix, Path: "/", Backend: name + ":http"},
		}}
		c.Hosts = append(c.Hosts, host)
		c.Backends = append(c.Backends, gateway.Backend{Name: name + ":http", Endpoints: name + ":http"})
		set := gateway.EndpointSet{Name: name + ":http"}
		for pod := range 3 {
			set.Addresses = append(set.Addresses, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(pod + 1)}), 8080))
		}
		c.EndpointSets = append(c.EndpointSets, set)
		if chain != nil {
			c.Certificates = append(c.Certificates, gateway.Certificate{Name: name, ServerNames: []string{host.Name}, Chain: chain, Key: key})
		}
	}
	return c
}

// BenchmarkBuild is one change of one host.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{1500, 10_000} {
		config := manyHosts(n, []byte("chain"), []byte("key"))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if out, problems := xds.Build(config, xds.Settings{}); out.Len(xds.VirtualHost) != n+1 || len(problems) > 0 {
					b.Fatal(out.Len(xds.VirtualHost), problems)
				}
			}
		})
	}
}

// BenchmarkBuilder is one change of one host by a Builder.
func BenchmarkBuilder(b *testing.B) {
	for _, n := range []int{3000, 10_000} {
		for _, kind := range []string{"endpoints", "route", "certificate", "host"} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				config := manyHosts(n, []byte("chain"), []byte("key"))
				var builder xds.Builder
				builder.Build(config, xds.Settings{})
				round := 0
				b.ReportAllocs()
				for b.Loop() {
					round++
					if out, problems := builder.Build(oneChange(config, kind, round), xds.Settings{}); out.Len(xds.VirtualHost) < n || len(problems) > 0 {
						b.Fatal(out.Len(xds.VirtualHost), problems)
					}
				}
			})
		}
	}
}

// oneChange is a Config with one thing changed, which shares all else with c, as one of gateway.Cache does.
func oneChange(c gateway.Config, kind string, round int) gateway.Config {
	i := len(c.Hosts) / 2
	switch kind {
	case "endpoints":
		c.EndpointSets = slices.Clone(c.EndpointSets)
		c.EndpointSets[i].Addresses = c.EndpointSets[i].Addresses[:1+round%2]
	case "route":
		c.Hosts = slices.Clone(c.Hosts)
		c.Hosts[i].Routes = c.Hosts[i].Routes[round%2:]
	case "certificate":
		c.Certificates = slices.Clone(c.Certificates)
		c.Certificates[i].Key = fmt.Append(nil, round)
	case "host":
		if round%2 == 0 {
			c.Hosts, c.Certificates = slices.Delete(slices.Clone(c.Hosts), i, i+1), slices.Delete(slices.Clone(c.Certificates), i-1, i)
		}
	}
	return c
}
