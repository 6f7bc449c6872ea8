package link

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// InNetNS calls f with its thread in the network namespace of a file descriptor. 0 is the one that the thread is in: an
// agent has the right to enter no other one, and only tests do.
func InNetNS(netns int, f func() error) error {
	if netns == 0 {
		return f()
	}
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer func() {
		if unix.Setns(own, unix.CLONE_NEWNET) == nil { // else the thread ends with its goroutine
			runtime.UnlockOSThread()
		}
		_ = unix.Close(own)
	}()
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return f()
}
