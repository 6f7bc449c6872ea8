// Package testenv says what a test needs of its machine. A test whose need is not met skips and says why, or
// fails where LAB=strict asks for all tests.
package testenv

import (
	"os"
	"testing"

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
