package cluster

// Registry stands before the names of all images of the rig. Nothing is fetched from there: the rig builds them itself.
const Registry = "hythe.dev/rig"

// Names of the images that the rig builds. Names and tags of the e2e tests' are those of test/utils/image/manifest.go of
// Kubernetes 1.36.3, with Registry in the place of theirs (see TestRegistries); the tests that want them run the commands of
// agnhost's image.
const (
	PauseImage   = Registry + "/pause:3.10.2"
	CoreDNSImage = Registry + "/coredns:v1.14.7"
	AgnhostImage = Registry + "/agnhost:2.63.0"
	// BoomImage answers the beginning of a connection with a packet outside of its window.
	BoomImage = Registry + "/regression-issue-74839:1.4"
)

// TestRegistries is the file that e2e.test reads with KUBE_TEST_REPO_LIST: where it takes its images from.
func TestRegistries() string {
	return "buildImageRegistry: " + Registry + "\ngcRegistry: " + Registry + "\npromoterE2eRegistry: " + Registry + "\n"
}

// AgnhostAliases are further names of agnhost's image.
func AgnhostAliases() []string {
	return []string{
		Registry + "/busybox:1.37.0-1",
		Registry + "/distroless-iptables:v0.9.6",
		Registry + "/glibc-dns-testing:2.0.0",
	}
}
