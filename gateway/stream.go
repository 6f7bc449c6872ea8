package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/model"
)

// A Stream is a port of the gateway whose TCP connections, or UDP datagrams, go to a Service as they are.
type Stream struct {
	// Protocol is TCP or UDP.
	Protocol corev1.Protocol
	// Port is the one that clients ask for.
	Port uint16
	// Backend is the Name of the Backend.
	Backend string
	// ProxyProtocol expects the PROXY protocol from the load balancers of Listen.ProxyProtocol; TCP alone.
	ProxyProtocol bool
	// Origin is the object that asked for it.
	Origin model.ObjectRef
}

// String is "tcp/5432 db/postgres:5432;tcp".
func (s Stream) String() string {
	out := s.Name() + " " + s.Backend
	if s.ProxyProtocol {
		out += " proxy-protocol"
	}
	return out
}

// Name is "tcp/5432".
func (s Stream) Name() string {
	return strings.ToLower(string(s.Protocol)) + "/" + strconv.Itoa(int(s.Port))
}

// mostStreams bounds the listeners of Envoy.
const mostStreams = 200

// A streamList is where ports are written down, as in the ConfigMaps of ingress-nginx.
type streamList struct {
	from     model.ObjectRef
	field    string // before the port, for Problems
	protocol corev1.Protocol
	entries  map[string]string
}

// streamLists are all, those of the GatewayConfig first.
func (x *index) streamLists(settings Settings, asked v1alpha1.Listeners, config string) ([]streamList, []model.Problem) {
	ref := model.ObjectRef{Kind: "GatewayConfig", Name: config}
	lists := []streamList{
		{ref, "spec.listeners.tcpServices", corev1.ProtocolTCP, asked.TCPServices},
		{ref, "spec.listeners.udpServices", corev1.ProtocolUDP, asked.UDPServices},
	}
	var problems []model.Problem
	for _, c := range []struct {
		key      model.Key
		protocol corev1.Protocol
	}{{settings.TCPServices, corev1.ProtocolTCP}, {settings.UDPServices, corev1.ProtocolUDP}} {
		if c.key.Name == "" {
			continue
		}
		m := x.snapshot.ConfigMaps.Get(c.key)
		x.noteConfigMap(c.key, m)
		if m == nil {
			problems = append(problems, model.Problemf(model.Ref("ConfigMap", c.key), "ConfigMapNotFound",
				"it names the %s Services that are exposed, and does not exist, or has no line; or ConfigMaps are not read: the gateway needs the flag --config-maps", c.protocol))
			continue
		}
		lists = append(lists, streamList{model.Ref("ConfigMap", c.key), "data", c.protocol, m.Data})
	}
	return lists, problems
}

// buildStreams reads the lists of exposed Services. An administrator writes them, so they may lead to any namespace.
func (x *index) buildStreams(settings Settings, asked v1alpha1.Listeners, config string) []model.Problem {
	lists, problems := x.streamLists(settings, asked, config)
	taken := map[string]model.ObjectRef{}
	for _, list := range lists {
		for _, port := range slices.SortedFunc(maps.Keys(list.entries), byNumber) {
			s, to, refused := x.stream(list, port)
			if refused == nil {
				switch by, ok := taken[s.Name()]; {
				case ok:
					refused = &refusal{"PortConflict", "it is taken by " + by.String() + ", which comes first"}
				case len(x.streams) == mostStreams:
					refused = &refusal{"TooManyPorts", fmt.Sprintf("there are %d already", mostStreams)}
				}
			}
			if refused != nil {
				problems = append(problems, model.Problemf(list.from, refused.reason, "%s[%s]: %s; the port is not exposed", list.field, quote(port), refused.message))
				continue
			}
			taken[s.Name()] = list.from
			x.streams, x.streamed = append(x.streams, s), append(x.streamed, to)
		}
	}
	slices.SortFunc(x.streams, func(a, b Stream) int { return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port)) })
	return problems
}

func byNumber(a, b string) int {
	m, _ := strconv.Atoi(a)
	n, _ := strconv.Atoi(b)
	return cmp.Or(cmp.Compare(m, n), strings.Compare(a, b))
}

// stream reads one entry: "NAMESPACE/SERVICE:PORT", then ":PROXY" if clients speak the PROXY protocol, and ":PROXY" again if the
// Service does.
func (x *index) stream(list streamList, port string) (Stream, target, *refusal) {
	invalid := func(format string, args ...any) (Stream, target, *refusal) {
		return Stream{}, target{}, &refusal{"InvalidPort", fmt.Sprintf(format, args...)}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || strconv.FormatUint(number, 10) != port {
		return invalid("%s is no port", quote(port))
	}
	if list.protocol == corev1.ProtocolTCP && (number == 80 || number == 443) || list.protocol == corev1.ProtocolUDP && number == 443 {
		return Stream{}, target{}, &refusal{"PortConflict", "it is the gateway's own, for http and https"}
	}
	words := strings.Split(list.entries[port], ":")
	namespace, name, ok := strings.Cut(words[0], "/")
	if !ok || namespace == "" || name == "" || len(words) < 2 || len(words) > 4 || words[1] == "" {
		return invalid("%s is not NAMESPACE/SERVICE:PORT, with :PROXY once or twice behind it", quote(list.entries[port]))
	}
	s := Stream{Protocol: list.protocol, Port: uint16(number), Origin: list.from}
	settings := policy.Backend{Stream: policy.Connections}
	if list.protocol == corev1.ProtocolUDP {
		settings.Stream = policy.Datagrams
	}
	for i, word := range words[2:] {
		switch {
		case word == "":
		case word != "PROXY":
			return invalid("%s is neither PROXY nor empty", quote(word))
		case list.protocol == corev1.ProtocolUDP:
			return invalid("the PROXY protocol is for TCP alone")
		case i == 0 && len(x.listen.ProxyProtocol) == 0:
			return invalid("it expects the PROXY protocol, and spec.listeners.proxyProtocolFrom of the GatewayConfig names nobody who may speak it")
		case i == 0:
			s.ProxyProtocol = true
		default:
			settings.ProxyProtocol = policy.ProxyV1
		}
	}
	to, refused := x.streamTarget(model.Key{Namespace: namespace, Name: name}, words[1], list.protocol)
	if refused != nil {
		return Stream{}, target{}, refused
	}
	to.settings = settings
	if refused := x.speakProxy(&to); refused != nil {
		return Stream{}, target{}, refused
	}
	s.Backend = to.name()
	return s, to, nil
}

// streamTarget finds a Service port of a protocol, by name or number.
func (x *index) streamTarget(key model.Key, wanted string, protocol corev1.Protocol) (target, *refusal) {
	service := x.snapshot.Services.Get(key)
	switch {
	case service == nil:
		return target{}, &refusal{"ServiceNotFound", fmt.Sprintf("Service %s does not exist", quote(key.String()))}
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		return target{}, &refusal{"ExternalNameRefused", fmt.Sprintf("Service %s is of type ExternalName, which could lead anywhere; give it endpoints instead", key)}
	}
	for i := range service.Spec.Ports {
		port := &service.Spec.Ports[i]
		if model.ProtocolOf(port) == protocol && (port.Name == wanted || strconv.Itoa(int(port.Port)) == wanted) {
			return target{servicePort: servicePort{key, port}}, nil
		}
	}
	return target{}, &refusal{"PortNotFound", fmt.Sprintf("Service %s has no port %s of %s; it has %s", key, quote(wanted), protocol, portsText(service))}
}

// speakProxy says that connections to a Service begin with the PROXY protocol, if its annotation asks for it.
func (x *index) speakProxy(to *target) *refusal {
	service := x.snapshot.Services.Get(to.service)
	if service == nil || to.port != nil && model.ProtocolOf(to.port) != corev1.ProtocolTCP {
		return nil
	}
	switch service.Annotations[v1alpha1.ProxyProtocolAnnotation] {
	case "":
	case "v1":
		to.settings.ProxyProtocol = policy.ProxyV1
	case "v2":
		to.settings.ProxyProtocol = policy.ProxyV2
	default:
		return &refusal{"InvalidAnnotation", fmt.Sprintf("annotation %s of Service %s is neither v1 nor v2", v1alpha1.ProxyProtocolAnnotation, to.service)}
	}
	return nil
}
