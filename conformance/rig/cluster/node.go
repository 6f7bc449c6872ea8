package cluster

import (
	"fmt"
	"net/netip"
	"strings"
)

// NodeDaemons lists the daemons of a node, in the order in which they are started.
func (c Cluster) NodeDaemons(n Node) []Daemon {
	out := []Daemon{
		{Machine: n.Name, Name: Containerd, Args: []string{"containerd", "--config=" + c.Path("config", "containerd.toml"), "--log-level=warn"}},
		{Machine: n.Name, Name: Kubelet, Args: []string{
			c.Binary(Kubelet), "--config=" + c.Path("config", "kubelet-"+n.Name+".yaml"), "--kubeconfig=" + c.config("kubelet-"+n.Name),
			"--hostname-override=" + n.Name, "--node-ip=" + joined(c.addresses(n)),
			"--node-labels=topology.kubernetes.io/zone=" + n.Zone(),
		}},
	}
	if c.OwnNetwork() {
		out = append(out, Daemon{Machine: n.Name, Name: KubeProxy, Args: []string{
			c.Binary(KubeProxy), "--kubeconfig=" + c.config("kube-proxy"), "--hostname-override=" + n.Name,
			"--proxy-mode=nftables", "--cluster-cidr=" + c.ranges(podCIDR, podCIDR6),
			// What concerns the whole machine is refused in a namespace.
			"--conntrack-max-per-core=0", "--conntrack-min=0",
			"--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
		}})
	}
	return out
}

// ContainerdConfig is the configuration of containerd 1.6, the same on each node: a node has its own /run, /var/lib, /etc
// and /opt.
func ContainerdConfig() string {
	return fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  # A negative value is refused on machines where root lacks the right.
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  BinaryName = "runc"
  SystemdCgroup = false
`, PauseImage)
}

// KubeletConfig is the configuration file of a node's kubelet.
func (c Cluster) KubeletConfig(n Node) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: %s
authorization:
  mode: Webhook
tlsCertFile: %s
tlsPrivateKeyFile: %s
clusterDNS:
- %s
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/volumeplugins
cgroupDriver: cgroupfs
failCgroupV1: false
cgroupsPerQOS: false
enforceNodeAllocatable: []
oomScoreAdj: 0
failSwapOn: false
protectKernelDefaults: false
# The disk is the machine's: a node must not evict pods because of what others put there.
evictionHard:
  memory.available: "0%%"
  nodefs.available: "0%%"
  nodefs.inodesFree: "0%%"
  imagefs.available: "0%%"
  imagefs.inodesFree: "0%%"
imageGCHighThresholdPercent: 100
`, c.cert("ca"), c.cert("kubelet-"+n.Name), c.key("kubelet-"+n.Name), dnsAddress)
}

// BridgeConfig is the configuration of the reference plugins on a node, of the version that containerd 1.6 knows. Pods
// keep their addresses on the way out, as router and client have routes to them.
func BridgeConfig(podCIDRs []netip.Prefix) string {
	var ranges, routes []string
	for _, p := range podCIDRs {
		ranges = append(ranges, fmt.Sprintf("[{\"subnet\": %q}]", p))
		routes = append(routes, fmt.Sprintf("{\"dst\": %q}", netip.PrefixFrom(p.Addr().Next(), 0).Masked()))
	}
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": "bridge",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [%s],
        "routes": [%s]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`, strings.Join(ranges, ", "), strings.Join(routes, ", "))
}
