package speaker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"hythe.dev/hythe/internal/atomicfile"
)

// Stored is what a node remembers of a VIP over restarts.
type Stored struct {
	// Generation is the highest one that it knows.
	Generation uint64 `json:"generation"`
	// Owned says that it owned the VIP in this generation.
	Owned bool `json:"owned"`
}

const storeName = "vips.json"

// load reads what was stored in dir, which nobody else writes; a file that does not exist is empty.
func load(dir string) (map[netip.Addr]Stored, error) {
	_ = atomicfile.Sweep(filepath.Join(dir, storeName)) // reading tells better what is wrong with dir
	data, err := os.ReadFile(filepath.Join(dir, storeName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read owned VIPs: %w", err)
	}
	var out map[netip.Addr]Stored
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("read owned VIPs from %s: %w", storeName, err)
	}
	return out, nil
}

// save replaces the file, unless it says all this already. It does not wait for the disk: a record lost with the machine's
// power costs a takeover, waiting for the disk would make each one late.
func save(dir string, vips map[netip.Addr]Stored) error {
	path := filepath.Join(dir, storeName)
	data, err := json.Marshal(vips)
	if err == nil {
		data = append(data, '\n')
		if is, err := os.ReadFile(path); err == nil && bytes.Equal(is, data) {
			return nil
		}
		err = atomicfile.WriteUnsynced(path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write owned VIPs: %w", err)
	}
	return nil
}

// Forget removes what a node remembers of VIPs.
func Forget(dir string) error {
	if err := os.Remove(filepath.Join(dir, storeName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove owned VIPs: %w", err)
	}
	return nil
}
