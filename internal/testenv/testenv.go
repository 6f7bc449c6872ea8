// Package testenv says what a test needs of its machine. A test whose need is not met skips and says why, or
// fails where LAB=strict asks for all tests.
package testenv

import (
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"

	"hythe.dev/hythe/internal/envoy/binary"
)

// Strict reports whether skips are failures.
func Strict() bool { return os.Getenv("LAB") == "strict" }

func skip(tb testing.TB, format string, args ...any) {
	tb.Helper()
	if Strict() && !testing.Short() {
		tb.Fatalf("LAB=strict: "+format, args...)
	}
	tb.Skipf(format, args...)
}

// Root skips the test unless it runs as root. With -short it skips always: what needs root takes longer.
func Root(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		skip(tb, "needs root, left out with -short")
	}
	if os.Geteuid() != 0 {
		skip(tb, "needs root: run it with sudo, or make test")
	}
}

// Envoy returns the path of the Envoy binary that binary.Find finds, or skips the test.
func Envoy(tb testing.TB) string {
	tb.Helper()
	if testing.Short() {
		skip(tb, "needs Envoy, left out with -short")
	}
	path, err := binary.Find()
	if err != nil {
		skip(tb, "%v", err)
	}
	return path
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
