// Package host makes the machines of the rig out of one Linux machine.
//
//	the machine
//	├─ hc-host ── cable to the LAN, for kubectl and helm
//	├─ netns hc-lan, hc-router, hc-client
//	├─ netns hc-control          etcd, kube-apiserver, kube-controller-manager, kube-scheduler
//	└─ node1                     netns hc-node1, and its own of pid, mnt, uts, ipc, cgroup
//	   ├─ pid 1: Init            everything of the node ends with it
//	   ├─ containerd, kubelet
//	   └─ pods
//
// All of a node's mounts are in its mount namespace: own /proc, /sys, /run (a tmpfs), /etc (an overlay), /opt, /var/lib
// and /var/log, with shared propagation as runc wants it. The mount namespace has no name, so the mounts end with the
// node's last process, however it ends; nothing is mounted in the machine's own namespace but what "ip netns" shows.
//
// A node is found by its network namespace's name, never by a file of the rig: Remove works after a crash at any point.
package host
