package speaker

import (
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

// load reads what was stored in dir; a file that does not exist is empty.
func load(dir string) (map[netip.Addr]Stored, error) {
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

// save replaces the file. It does not wait for the disk: a record lost with the machine's power costs a takeover,
// waiting for the disk would make each one late.
func save(dir string, vips map[netip.Addr]Stored) error {
	data, err := json.Marshal(vips)
	if err == nil {
		err = atomicfile.WriteUnsynced(filepath.Join(dir, storeName), append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write owned VIPs: %w", err)
	}
	return nil
}
