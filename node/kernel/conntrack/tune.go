package conntrack

import "hythe.dev/hythe/node/kernel/link"

// Sysctls are times after which the kernel forgets a TCP connection that is silent, in seconds: the same as kube-proxy's
// (--conntrack-tcp-timeout-close-wait, --conntrack-tcp-timeout-established). By the kernel's own, an endpoint whose client
// has said all it had to say must answer within a minute (kubernetes#32551), and what was lost without a word keeps its
// place for five days. Whoever chose another time keeps it.
func Sysctls() []link.Sysctl {
	const folder = "net/netfilter/nf_conntrack_tcp_timeout_"
	return []link.Sysctl{
		{Name: folder + "close_wait", Value: "3600", Only: "60"},
		{Name: folder + "established", Value: "86400", Only: "432000"},
	}
}
