package lab

import (
	"time"

	"hythe.dev/hythe/internal/lab/kubelet"
)

// Status is all of a lab at one moment.
type Status struct {
	PID       int             `json:"pid"`
	Manifests string          `json:"manifests"`
	CA        string          `json:"ca"`
	Processes []ProcessStatus `json:"processes"`
	Pods      []PodStatus     `json:"pods"`
	VIPs      []VIPStatus     `json:"vips"`
	// Added and Skipped are what the lab added to the manifests, and what it could not add.
	Added   []string `json:"added"`
	Skipped []string `json:"skipped"`
	// Problems are what Hythe says it cannot do, and manifests that cannot be read.
	Problems []string `json:"problems"`
	// Waiting says what is not as it should be yet.
	Waiting []string `json:"waiting"`
}

// ProcessStatus is one process of Hythe, named "node1/gateway".
type ProcessStatus struct {
	kubelet.ProcessStatus
	Ready bool   `json:"ready"`
	Why   string `json:"why"` // when not ready
}

// PodStatus is one pod.
type PodStatus struct {
	Namespace   string          `json:"namespace"`
	Name        string          `json:"name"`
	Owner       string          `json:"owner"` // the name of its Deployment or DaemonSet
	Node        string          `json:"node"`
	Address     string          `json:"address"`
	Images      []string        `json:"images"`
	Ready       bool            `json:"ready"`
	Terminating bool            `json:"terminating"`
	Message     string          `json:"message"`
	Netns       string          `json:"netns"` // the name of its network namespace
	Containers  []ContainerInfo `json:"containers"`
}

// ContainerInfo is one container of a pod.
type ContainerInfo struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
}

// VIPStatus is one address given to Services.
type VIPStatus struct {
	Address  string   `json:"address"`
	Pool     string   `json:"pool"`
	Services []string `json:"services"`
	// Owners are the nodes that say they have it; it should be one.
	Owners []string `json:"owners"`
}
