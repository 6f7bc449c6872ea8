package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A HostPort leads from a port of the node to one of the pod: an entry of runtimeConfig.portMappings (CNI conventions,
// "port mappings"). The Service datapath serves it.
type HostPort struct {
	// HostIP is an address of the node. The zero Addr is all of them, an unspecified one all of its family.
	HostIP netip.Addr `json:"hostIP,omitzero"`
	// Protocol is "tcp", "udp" or "sctp".
	Protocol string `json:"protocol"`
	HostPort uint16 `json:"hostPort"`
	// ContainerPort is that of the pod's addresses.
	ContainerPort uint16 `json:"containerPort"`
}

// String is "tcp 127.0.0.1:8080->80"; each address of the node is "*".
func (p HostPort) String() string {
	where := "*"
	if p.HostIP.IsValid() {
		where = p.HostIP.String()
		if p.HostIP.Is6() {
			where = "[" + where + "]"
		}
	}
	return fmt.Sprintf("%s %s:%d->%d", p.Protocol, where, p.HostPort, p.ContainerPort)
}

// loopback says whether connections from 127.0.0.1 may come to the pod. IPv6 has no such road: what comes from ::1 stays
// on the loopback interface.
func (p HostPort) loopback() bool {
	a := p.HostIP
	return !a.IsValid() || a == netip.IPv4Unspecified() || a.Is4() && a.IsLoopback()
}

// A portMapping is what the runtime hands over.
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// parseHostPorts reads runtimeConfig.
func parseHostPorts(runtimeConfig json.RawMessage) ([]HostPort, error) {
	if len(runtimeConfig) == 0 {
		return nil, nil
	}
	var c struct {
		PortMappings []portMapping `json:"portMappings"`
	}
	if err := json.Unmarshal(runtimeConfig, &c); err != nil {
		return nil, fmt.Errorf("parse runtimeConfig: %w", err)
	}
	var out []HostPort
	for i, m := range c.PortMappings {
		p, err := m.parse()
		if err != nil {
			return nil, fmt.Errorf("parse runtimeConfig.portMappings[%d]: %w", i, err)
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (m portMapping) parse() (HostPort, error) {
	for _, port := range []struct {
		name   string
		number int
	}{{"hostPort", m.HostPort}, {"containerPort", m.ContainerPort}} {
		if port.number < 1 || port.number > 65535 {
			return HostPort{}, fmt.Errorf("%s %d is not between 1 and 65535", port.name, port.number)
		}
	}
	p := HostPort{Protocol: strings.ToLower(m.Protocol), HostPort: uint16(m.HostPort), ContainerPort: uint16(m.ContainerPort)}
	switch p.Protocol {
	case "":
		p.Protocol = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return HostPort{}, fmt.Errorf("protocol %q is none of tcp, udp and sctp", m.Protocol)
	}
	if m.HostIP == "" {
		return p, nil
	}
	a, err := netip.ParseAddr(m.HostIP)
	if err != nil || a.Zone() != "" || a.IsMulticast() {
		return HostPort{}, fmt.Errorf("hostIP %q is no IP address that a node can have", m.HostIP)
	}
	p.HostIP = a.Unmap()
	return p, nil
}

// podOf returns NAMESPACE/NAME of the pod that a container belongs to, as Kubernetes' runtimes tell it in CNI_ARGS; ""
// if they do not.
func podOf(args string) string {
	var namespace, name string
	for _, pair := range strings.Split(args, ";") {
		switch key, value, _ := strings.Cut(pair, "="); key {
		case "K8S_POD_NAMESPACE":
			namespace = value
		case "K8S_POD_NAME":
			name = value
		}
	}
	if namespace == "" || name == "" {
		return ""
	}
	return namespace + "/" + name
}

// SetHostPorts notes the host ports of a request that has a lease, and whose they are. It reports whether they were
// other ones.
func (l *Leases) SetHostPorts(r Request, pod string, ports []HostPort) bool {
	for i := range l.Leases {
		e := &l.Leases[i]
		if e.Request != r || slices.Equal(e.HostPorts, ports) && (e.Pod == pod || len(ports) == 0) {
			continue
		}
		e.HostPorts, e.Pod = ports, ""
		if len(ports) > 0 {
			e.Pod = pod
		}
		return true
	}
	return false
}
