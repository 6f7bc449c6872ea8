package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// nameFile holds the name of the lab that lives in a folder.
const nameFile = "name"

// At returns the lab in a folder, with the name that it was started by. A folder without a lab is one of the usual name.
func At(dir string) (Lab, error) {
	l, err := New("", dir)
	if err != nil {
		return Lab{}, err
	}
	name, err := os.ReadFile(filepath.Join(l.Dir, nameFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Lab{}, fmt.Errorf("read name of lab: %w", err)
	}
	return New(string(name), l.Dir)
}

func (l Lab) writeName() error {
	if err := os.WriteFile(l.path(nameFile), []byte(l.Name), 0o644); err != nil {
		return fmt.Errorf("write name of lab: %w", err)
	}
	return nil
}
