package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/atomicfile"
)

// LeasesFile is where the leases are, for whoever waits for changes: the file is replaced by rename.
func LeasesFile(dataDir string) string { return openStore(dataDir, "").file() }

// BootIDFile is where the kernel tells one boot from another.
const BootIDFile = "/proc/sys/kernel/random/boot_id"

// Now is the time since the machine booted (clock_gettime(2), CLOCK_BOOTTIME).
func Now() Uptime {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return Uptime(time.Hour) // the clock exists since Linux 2.6.39
	}
	return Uptime(t.Nano())
}

// A store keeps Leases in a file. A lock beside it lets one process at a time change them.
type store struct {
	dir        string
	bootIDFile string
}

func (s store) file() string { return filepath.Join(s.dir, "leases.json") }

// update changes the leases: what change does to them is on disk when update returns nil, and not at all when it
// returns an error. Leases of another boot are none (afterBoot).
func (s store) update(change func(*Leases) (changed bool, err error)) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make folder for leases: %w", err)
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	// With the lock in hand no temporary file is in use: those that are there are of plugins that were killed.
	if err := atomicfile.Sweep(s.file()); err != nil {
		return err
	}
	leases, err := s.load()
	if err != nil {
		return err
	}
	changed, err := change(leases)
	if err != nil || !changed {
		return err
	}
	data, err := json.MarshalIndent(leases, "", " ")
	if err != nil {
		return fmt.Errorf("encode leases: %w", err)
	}
	return atomicfile.Write(s.file(), data, 0o600)
}

// lock waits until no other process holds the lock. It ends with the process, however that ends.
func (s store) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock leases: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock leases: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

func (s store) load() (*Leases, error) {
	id, err := os.ReadFile(s.bootIDFile)
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	boot := strings.TrimSpace(string(id))
	if boot == "" {
		return nil, fmt.Errorf("read boot id: %s is empty", s.bootIDFile)
	}
	data, err := os.ReadFile(s.file())
	if errors.Is(err, fs.ErrNotExist) {
		return &Leases{BootID: boot}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	leases, err := parseLeases(data)
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, s.file())
	}
	if leases.BootID != boot {
		return leases.afterBoot(boot), nil
	}
	return leases, nil
}
