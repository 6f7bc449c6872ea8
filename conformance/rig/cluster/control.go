package cluster

import (
	"fmt"
	"net/netip"
)

// A Daemon is a program that runs until it is stopped.
type Daemon struct {
	// Machine is a node's name, or Control.
	Machine string
	Name    string
	Args    []string
}

// ID names the daemon: for its log, its pid file, and on the command line.
func (d Daemon) ID() string {
	if d.Machine == Control {
		return d.Name
	}
	return d.Machine + "/" + d.Name
}

// Names of daemons.
const (
	Etcd              = "etcd"
	APIServerDaemon   = "kube-apiserver"
	APIServerDaemon2  = "kube-apiserver-2"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Containerd        = "containerd"
	Kubelet           = "kubelet"
	KubeProxy         = "kube-proxy"
)

// ControlPlane lists the daemons of the control plane, in the order in which they are started.
func (c Cluster) ControlPlane() []Daemon {
	out := []Daemon{c.etcd()}
	for i, address := range c.APIServers() {
		out = append(out, c.apiServer([]string{APIServerDaemon, APIServerDaemon2}[i], address))
	}
	return append(out, c.controllerManager(), c.scheduler())
}

func (c Cluster) etcd() Daemon {
	const peer, client = "http://127.0.0.1:2380", "http://127.0.0.1:2379"
	return Daemon{Machine: Control, Name: Etcd, Args: []string{
		c.Binary(Etcd), "--data-dir=" + c.Path("etcd"),
		"--unsafe-no-fsync", // the cluster does not outlive the machine
		"--logger=zap", "--log-level=warn",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}}
}

func (c Cluster) apiServer(name string, api netip.AddrPort) Daemon {
	return Daemon{Machine: Control, Name: name, Args: []string{
		c.Binary(APIServerDaemon), "--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=" + api.Addr().String(), fmt.Sprintf("--secure-port=%d", api.Port()), "--advertise-address=" + api.Addr().String(),
		"--tls-cert-file=" + c.cert("kube-apiserver"), "--tls-private-key-file=" + c.key("kube-apiserver"),
		"--client-ca-file=" + c.cert("ca"),
		"--kubelet-certificate-authority=" + c.cert("ca"),
		"--kubelet-client-certificate=" + c.cert("kubelet-client"), "--kubelet-client-key=" + c.key("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP,Hostname", // no DNS here knows the nodes
		"--proxy-client-cert-file=" + c.cert("front-proxy"), "--proxy-client-key-file=" + c.key("front-proxy"),
		"--requestheader-client-ca-file=" + c.cert("ca"), "--requestheader-allowed-names=front-proxy",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.key("service-accounts"), "--service-account-signing-key-file=" + c.key("service-accounts"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--service-cluster-ip-range=" + c.ranges(serviceCIDR, serviceCIDR6),
		"--enable-aggregator-routing=true", // no Service proxy runs here
		"--shutdown-delay-duration=0s", "--shutdown-watch-termination-grace-period=2s", "--profiling=false",
	}}
}

func (c Cluster) controllerManager() Daemon {
	return Daemon{Machine: Control, Name: ControllerManager, Args: []string{
		c.Binary(ControllerManager), "--kubeconfig=" + c.config("kube-controller-manager"),
		"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false",
		"--use-service-account-credentials=true", "--service-account-private-key-file=" + c.key("service-accounts"),
		"--root-ca-file=" + c.cert("ca"),
		"--cluster-signing-cert-file=" + c.cert("ca"), "--cluster-signing-key-file=" + c.key("ca"),
		"--allocate-node-cidrs=true", "--cluster-cidr=" + c.ranges(podCIDR, podCIDR6), "--service-cluster-ip-range=" + c.ranges(serviceCIDR, serviceCIDR6),
		"--configure-cloud-routes=false",
	}}
}

func (c Cluster) scheduler() Daemon {
	return Daemon{Machine: Control, Name: Scheduler, Args: []string{
		c.Binary(Scheduler), "--kubeconfig=" + c.config("kube-scheduler"),
		"--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false",
	}}
}

func (c Cluster) cert(name string) string   { return c.Path("pki", name+".crt") }
func (c Cluster) key(name string) string    { return c.Path("pki", name+".key") }
func (c Cluster) config(name string) string { return c.Path("config", name+".kubeconfig") }
