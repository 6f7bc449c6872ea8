package kube

// ControllerKinds is what the controller watches. Secrets are not among it.
func ControllerKinds() []string {
	return []string{"Ingress", "Service", "Node", "AddressPool", "AddressClaim", "Report"}
}

// GatewayKinds is what a gateway watches, and ConfigMaps if it is told to. Nodes and claims tell which endpoints it must
// refuse.
func GatewayKinds() []string {
	return []string{"Ingress", "IngressClass", "Service", "EndpointSlice", "Secret", "Node", "AddressClaim", "GatewayConfig"}
}

// NodeKinds is what the agent of a node watches.
func NodeKinds() []string {
	return []string{"Service", "ServiceCIDR", "EndpointSlice", "Node", "AddressClaim"}
}

// AllKinds is what a Snapshot can hold.
func AllKinds() []string {
	return []string{"Ingress", "IngressClass", "Service", "ServiceCIDR", "EndpointSlice", "Secret", "ConfigMap", "Node", "AddressPool", "AddressClaim", "Report", "GatewayConfig"}
}
