// Package testenv says what a test needs of its machine. A test whose need is not met skips and says why, or
// fails where LAB=strict asks for all tests.
package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
)

// Strict reports whether skips are failures.
func Strict() bool { return os.Getenv("LAB") == "strict" }

func skip(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if Strict() {
		tb.Fatalf("LAB=strict: "+format, args...)
	}
	tb.Skipf(format, args...)
}

// Root skips the test unless it runs as root.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		skip(tb, "needs root: run it with sudo, or make test")
	}
}

// Envoy returns the path of an Envoy binary, or skips the test. ENVOY names one; otherwise the place where
// scripts/envoy.sh puts it is used.
func Envoy(tb testing.TB) string {
	tb.Helper()
	path, err := FindEnvoy()
	if err != nil {
		skip(tb, "%v", err)
	}
	return path
}

// FindEnvoy returns the path of an Envoy binary.
func FindEnvoy() (string, error) {
	if path := os.Getenv("ENVOY"); path != "" {
		return path, nil
	}
	home, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find Envoy: %w", err)
	}
	path := filepath.Join(home, "hythe", "envoy", "envoy", "_bin", "envoy")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no Envoy at %s: run make envoy, or set ENVOY", path)
	}
	return path, nil
}

// NetNS moves the test to a new network namespace, on a thread of its own, until the test ends. Goroutines that
// the test starts are not in it.
func NetNS(tb testing.TB) netns.NsHandle {
	tb.Helper()
	Root(tb)
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		tb.Fatalf("get network namespace: %v", err)
	}
	ns, err := netns.New()
	if err != nil {
		tb.Fatalf("make network namespace: %v", err)
	}
	tb.Cleanup(func() {
		if err := netns.Set(old); err != nil {
			// The thread stays locked and dies with the goroutine: nobody inherits the wrong namespace.
			tb.Errorf("return to network namespace: %v", err)
			return
		}
		_ = ns.Close()
		_ = old.Close()
		runtime.UnlockOSThread()
	})
	return ns
}

// Corpus returns the folder of real manifests named by CORPUS, or skips the test.
func Corpus(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("CORPUS")
	if dir == "" {
		// Not an error under LAB=strict: the corpus is no part of the repository.
		tb.Skip("needs CORPUS=DIR, a folder of Ingress manifests")
	}
	return dir
}
