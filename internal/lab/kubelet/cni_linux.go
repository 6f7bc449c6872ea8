package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"hythe.dev/hythe/internal/lab/cluster"
	"hythe.dev/hythe/internal/lab/topology"
)

// attach calls CNI ADD for the pod, as a container runtime on its node would, and returns the pod's address.
func (k *Kubelet) attach(ctx context.Context, pod *cluster.Pod, containerID string) (netip.Addr, error) {
	var addr netip.Addr
	err := k.withCNI(pod, containerID, func(cni libcni.CNI, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
		result, err := cni.AddNetworkList(ctx, list, rt)
		if err != nil {
			return err
		}
		r, err := types100.GetResult(result)
		if err != nil {
			return err
		}
		for _, ip := range r.IPs {
			if a, ok := netip.AddrFromSlice(ip.Address.IP); ok && !addr.IsValid() {
				addr = a.Unmap()
			}
		}
		if !addr.IsValid() {
			return errors.New("the result has no address")
		}
		return nil
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("CNI ADD: %w", err)
	}
	return addr, nil
}

// detach calls CNI DEL for the pod.
func (k *Kubelet) detach(ctx context.Context, pod *cluster.Pod, containerID string) error {
	err := k.withCNI(pod, containerID, func(cni libcni.CNI, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
		return cni.DelNetworkList(ctx, list, rt)
	})
	if err != nil {
		return fmt.Errorf("CNI DEL: %w", err)
	}
	return nil
}

// withCNI reads the node's network configuration and calls f in the node's network namespace: libcni starts the plugin
// on the thread that calls it.
func (k *Kubelet) withCNI(pod *cluster.Pod, containerID string, f func(libcni.CNI, *libcni.NetworkConfigList, *libcni.RuntimeConf) error) error {
	dirs := k.Node(pod.Node)
	files, err := libcni.ConfFiles(dirs.CNIConf, []string{".conflist"})
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("the node has no network configuration yet")
	}
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		return err
	}
	rt := &libcni.RuntimeConf{
		ContainerID: containerID,
		NetNS:       topology.Path(k.namespace(pod)),
		IfName:      "eth0",
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", pod.Key.Namespace},
			{"K8S_POD_NAME", pod.Key.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", containerID},
		},
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{dirs.CNIBin, filepath.Dir(k.Executable)}, dirs.CNICache, nil)
	return topology.Do(topology.NamespaceName(k.Lab, pod.Node), func() error { return f(cni, list, rt) })
}

// containerID is unique to the pod, also among pods of the same name, and new when the pod is made anew.
func (r *Running) containerID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("lab-%s-%d-%d", r.pod.Key.Name, r.pod.Number, r.sandbox)
}

func (k *Kubelet) namespace(pod *cluster.Pod) string {
	return topology.PodNamespaceName(k.Lab, pod.Key.Namespace, pod.Key.Name)
}
