package cluster

// Names of the images that the rig builds. Those of the e2e tests are the ones of test/utils/image/manifest.go of
// Kubernetes 1.36.3; the tests that want them run the commands of agnhost's image.
const (
	PauseImage   = "registry.k8s.io/pause:3.10.2"
	CoreDNSImage = "registry.k8s.io/coredns/coredns:v1.14.7"
	AgnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
)

// AgnhostAliases are further names of agnhost's image.
func AgnhostAliases() []string {
	return []string{
		"registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
		"registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0",
	}
}
