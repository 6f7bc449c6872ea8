package lab

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountMemory mounts a file system in memory for the gateways' caches, which hold private keys.
func (l Lab) mountMemory() error {
	if err := os.MkdirAll(l.path("memory"), 0o700); err != nil {
		return fmt.Errorf("make folder in memory: %w", err)
	}
	if err := unix.Mount("hythe-lab", l.path("memory"), "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "size=64m,mode=0700"); err != nil {
		return fmt.Errorf("mount folder in memory: %w", err)
	}
	return nil
}

// unmountMemory is no error where nothing is mounted.
func (l Lab) unmountMemory() error {
	err := unix.Unmount(l.path("memory"), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount folder in memory: %w", err)
	}
	return nil
}
