package cluster

import (
	"hash/fnv"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"hythe.dev/hythe/internal/model"
)

const (
	firstNodePort = 30000
	lastNodePort  = 32767
)

// ServiceCIDR is the range that ClusterIPs are taken from.
func ServiceCIDR() netip.Prefix { return netip.MustParsePrefix("10.96.0.0/16") }

// Complete returns the Services as an API server would hand them out: with defaults, ClusterIPs and NodePorts. What an
// object asks for comes first, then what it had before, then a free one that depends on its name. It is pure and does
// not change its arguments.
func Complete(services, before map[Key]*corev1.Service) map[Key]*corev1.Service {
	out := Default(services)
	a := allocation{addresses: map[netip.Addr]bool{}, ports: map[portUse]bool{}}
	a.addresses[ServiceCIDR().Addr().Next()] = true // the API server's own, by custom
	keys := model.SortedKeys(out)
	for _, k := range keys {
		a.takeGiven(out[k])
	}
	for _, k := range keys {
		a.takeBefore(out[k], before[k])
	}
	for _, k := range keys {
		a.takeFree(out[k])
	}
	return out
}

// Default returns the Services with an API server's defaults, without addresses and ports. It does not change its argument.
func Default(services map[Key]*corev1.Service) map[Key]*corev1.Service {
	out := make(map[Key]*corev1.Service, len(services))
	for k, s := range services {
		s = s.DeepCopy()
		s.Namespace = k.Namespace
		s.APIVersion, s.Kind = "v1", "Service"
		setDefaults(s)
		out[k] = s
	}
	return out
}

func setDefaults(s *corev1.Service) {
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	if s.Spec.SessionAffinity == "" {
		s.Spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	cluster := corev1.ServiceInternalTrafficPolicyCluster
	if s.Spec.InternalTrafficPolicy == nil {
		s.Spec.InternalTrafficPolicy = &cluster
	}
	if hasNodePorts(s) && s.Spec.ExternalTrafficPolicy == "" {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	if s.Spec.IPFamilyPolicy == nil {
		single := corev1.IPFamilyPolicySingleStack
		s.Spec.IPFamilyPolicy = &single
	}
}

func hasNodePorts(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeLoadBalancer:
		return s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts
	}
	return false
}

type portUse struct {
	protocol corev1.Protocol
	port     int32
}

type allocation struct {
	addresses map[netip.Addr]bool
	ports     map[portUse]bool
}

func (a *allocation) takeGiven(s *corev1.Service) {
	if ip, err := netip.ParseAddr(s.Spec.ClusterIP); err == nil {
		a.addresses[ip] = true
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			a.ports[portUse{p.Protocol, p.NodePort}] = true
		}
	}
}

func (a *allocation) takeBefore(s, before *corev1.Service) {
	if before == nil {
		return
	}
	if ip, err := netip.ParseAddr(before.Spec.ClusterIP); err == nil && wantsAddress(s) && !a.addresses[ip] {
		a.setAddress(s, ip)
	}
	if !hasNodePorts(s) {
		return
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		for _, old := range before.Spec.Ports {
			use := portUse{p.Protocol, old.NodePort}
			if p.NodePort == 0 && old.NodePort != 0 && old.Port == p.Port && old.Protocol == p.Protocol && !a.ports[use] {
				p.NodePort = old.NodePort
				a.ports[use] = true
			}
		}
	}
}

func (a *allocation) takeFree(s *corev1.Service) {
	if wantsAddress(s) {
		// 16 bits of a hash over the name: the same Service gets the same address in each lab.
		base := ServiceCIDR().Addr().As4()
		for h := hash(s.Namespace, s.Name); ; h++ {
			ip := netip.AddrFrom4([4]byte{base[0], base[1], byte(h >> 8), byte(h)})
			if last := byte(h); last != 0 && last != 255 && !a.addresses[ip] {
				a.setAddress(s, ip)
				break
			}
		}
	}
	if !hasNodePorts(s) {
		return
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		const n = lastNodePort - firstNodePort + 1
		for h := hash(s.Namespace, s.Name, p.Name); p.NodePort == 0 && len(a.ports) < n; h++ {
			use := portUse{p.Protocol, int32(firstNodePort + h%n)}
			if !a.ports[use] {
				p.NodePort = use.port
				a.ports[use] = true
			}
		}
	}
}

func (a *allocation) setAddress(s *corev1.Service, ip netip.Addr) {
	a.addresses[ip] = true
	s.Spec.ClusterIP = ip.String()
	s.Spec.ClusterIPs = []string{ip.String()}
}

// wantsAddress says whether the Service still needs a ClusterIP. "None" is a headless Service.
func wantsAddress(s *corev1.Service) bool {
	return s.Spec.ClusterIP == "" && s.Spec.Type != corev1.ServiceTypeExternalName
}

func hash(parts ...string) uint32 {
	h := fnv.New32a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum32()
}
