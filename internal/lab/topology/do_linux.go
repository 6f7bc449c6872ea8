package topology

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netns"
)

// Do runs f with the thread of the calling goroutine in the named namespace. Sockets that f opens and processes that
// it starts are of that namespace; goroutines that it starts are not in it. An empty name is the current namespace.
func Do(name string, f func() error) error {
	if name == "" {
		return f()
	}
	target, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer target.Close()
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("get network namespace: %w", err)
	}
	defer old.Close()
	if err := netns.Set(target); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	ferr := f()
	if err := netns.Set(old); err != nil {
		// The thread stays locked and ends with its goroutine, so that nobody else gets the wrong namespace.
		return fmt.Errorf("leave network namespace %s: %w", name, err)
	}
	runtime.UnlockOSThread()
	return ferr
}

// Start starts cmd in the named namespace.
func Start(name string, cmd *exec.Cmd) error {
	return Do(name, cmd.Start)
}

// Enter moves the calling goroutine's thread for good. It is for a process that is about to exec.
func Enter(name string) error {
	runtime.LockOSThread()
	target, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer target.Close()
	return netns.Set(target)
}

// onOwnThread runs f on a thread that ends afterwards, for what changes the thread.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// Dial connects from the named namespace. addr must be numeric, so that the socket is made by this thread.
func Dial(ctx context.Context, ns, network, addr string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("dial from %s: %w", ns, err)
	}
	var conn net.Conn
	err := Do(ns, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}
