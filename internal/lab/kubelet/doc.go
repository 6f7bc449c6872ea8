// Package kubelet runs the lab's processes: Hythe's own on each node, and pods as a kubelet and a container runtime would.
//
//	Pod ── network namespace ── CNI ADD by libcni, in the node's namespace ── processes in the pod's ── probe from the node
//
//	end:  condition terminating ── preStop (a sleep, or hythe gateway drain), still serving ── SIGTERM ── grace period ── SIGKILL ── CNI DEL ── gone
//
// A container is a process: the real Envoy where the image is Envoy's, else the echo server. Processes are started again
// when they end, after a short back-off, unless they are held down.
package kubelet
