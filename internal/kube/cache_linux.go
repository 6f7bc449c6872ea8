package kube

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// inMemory returns an error unless dir is on a file system in memory.
func inMemory(dir string) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("look at cache folder %s: %w", dir, err)
	}
	if stat.Type != unix.TMPFS_MAGIC && stat.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("cache folder %s is not in memory: mount a tmpfs there, private keys are kept nowhere else", dir)
	}
	return nil
}
