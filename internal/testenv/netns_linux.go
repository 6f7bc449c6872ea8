package testenv

import (
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
)

// NetNS moves the test to a new network namespace, on a thread of its own, until the test ends. Goroutines that
// the test starts are not in it.
func NetNS(tb testing.TB) netns.NsHandle {
	tb.Helper()
	ns := NewNetNS(tb)
	tb.Cleanup(enter(tb, ns))
	return ns
}

// NewNetNS makes a network namespace without a name, which ends with the test.
func NewNetNS(tb testing.TB) netns.NsHandle {
	tb.Helper()
	return makeNetNS(tb, netns.New, func() {})
}

// NamedNetNS makes a network namespace that has a path, /run/netns/NAME, and ends with the test. One of this name that
// a killed test left is replaced.
func NamedNetNS(tb testing.TB, name string) netns.NsHandle {
	tb.Helper()
	_ = netns.DeleteNamed(name)
	return makeNetNS(tb, func() (netns.NsHandle, error) { return netns.NewNamed(name) }, func() { _ = netns.DeleteNamed(name) })
}

// makeNetNS calls open, which moves its thread to the new namespace, on a thread that ends afterwards.
func makeNetNS(tb testing.TB, open func() (netns.NsHandle, error), remove func()) netns.NsHandle {
	tb.Helper()
	Root(tb)
	var ns netns.NsHandle
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		var err error
		ns, err = open()
		done <- err
	}()
	if err := <-done; err != nil {
		tb.Fatalf("make network namespace: %v", err)
	}
	tb.Cleanup(func() {
		_ = ns.Close()
		remove()
	})
	return ns
}

// InNetNS calls fn on a thread in the namespace. Sockets that fn opens and processes that it starts are of that
// namespace; goroutines that it starts are not in it.
func InNetNS(tb testing.TB, ns netns.NsHandle, fn func()) {
	tb.Helper()
	defer enter(tb, ns)()
	fn()
}

// enter moves the calling goroutine, locked to its thread, to the namespace; leave moves it back.
func enter(tb testing.TB, ns netns.NsHandle) (leave func()) {
	tb.Helper()
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		tb.Fatalf("get network namespace: %v", err)
	}
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		_ = old.Close()
		tb.Fatalf("enter network namespace: %v", err)
	}
	return func() {
		defer old.Close()
		if err := netns.Set(old); err != nil {
			// The thread stays locked and dies with the goroutine: nobody inherits the wrong namespace.
			tb.Errorf("leave network namespace: %v", err)
			return
		}
		runtime.UnlockOSThread()
	}
}
