package cluster

import (
	"fmt"
	"net/netip"
)

// A Certificate is one that the cluster's authority signs.
type Certificate struct {
	// Name is the file name below pki/ without its ending.
	Name string
	// User and Groups are what Kubernetes reads in the subject.
	User      string
	Groups    []string
	Addresses []netip.Addr
	Hosts     []string
	// Kubeconfig says that a kubeconfig of the user is wanted.
	Kubeconfig bool
}

// Certificates lists what the control plane and the administrator need.
func (c Cluster) Certificates() []Certificate {
	return []Certificate{
		{
			Name: "kube-apiserver", User: "kube-apiserver",
			Addresses: []netip.Addr{control.Addr(), control2.Addr(), serviceCIDR.Addr().Next(), netip.MustParseAddr("127.0.0.1")},
			Hosts:     []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		},
		{Name: "kubelet-client", User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		{Name: "front-proxy", User: "front-proxy"},
		{Name: "admin", User: "admin", Groups: []string{"system:masters"}, Kubeconfig: true},
		{Name: "kube-controller-manager", User: "system:kube-controller-manager", Kubeconfig: true},
		{Name: "kube-scheduler", User: "system:kube-scheduler", Kubeconfig: true},
		{Name: "kube-proxy", User: "system:kube-proxy", Kubeconfig: true},
	}
}

// NodeCertificate is the certificate of a node's kubelet, as client and as server.
func (c Cluster) NodeCertificate(n Node) Certificate {
	return Certificate{
		Name: "kubelet-" + n.Name, User: "system:node:" + n.Name, Groups: []string{"system:nodes"},
		Addresses: c.addresses(n), Hosts: []string{n.Name}, Kubeconfig: true,
	}
}

// KubeconfigFile is the content of a kubeconfig that names the files of a certificate.
func (c Cluster) KubeconfigFile(cert Certificate) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: rig
contexts:
- name: rig
  context: {cluster: rig, user: %[1]s}
clusters:
- name: rig
  cluster:
    server: https://%[2]s
    certificate-authority: %[3]s
users:
- name: %[1]s
  user:
    client-certificate: %[4]s
    client-key: %[5]s
`, cert.User, c.endpoint(), c.cert("ca"), c.cert(cert.Name), c.key(cert.Name))
}
