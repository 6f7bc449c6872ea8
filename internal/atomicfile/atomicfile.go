// Package atomicfile replaces files by rename: at every moment a reader sees the old content or the new one, and
// never a part of either.
//
//	data ──> temporary file beside it ── fsync, unless it may get lost ──> rename over path ── fsync of the folder
//
// It imports the standard library only, since the CNI plugin uses it and starts for every pod.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Write replaces the file at path, in a folder that exists. When it returns nil, the content survives the loss of
// power. When it fails, the old file is as it was and nothing is left beside it.
func Write(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, true)
}

// WriteBy is Write of what fill writes, for content that would take much memory.
func WriteBy(path string, mode fs.FileMode, fill func(io.Writer) error) error {
	if err := replaceBy(path, mode, true, fill); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// WriteUnsynced is Write without waiting for the disk: a loss of power may bring back the old content, or leave the
// file empty. The end of the process, however it ends, does neither.
func WriteUnsynced(path string, data []byte, mode fs.FileMode) error {
	return write(path, data, mode, false)
}

// Keep is Write for a file that may be right already: one with this content and mode is left alone. It reports
// whether it wrote.
func Keep(path string, data []byte, mode fs.FileMode) (wrote bool, err error) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm() == mode {
		if is, err := os.ReadFile(path); err == nil && bytes.Equal(is, data) {
			return false, nil
		}
	}
	err = Write(path, data, mode)
	return err == nil, err
}

// Sweep removes what those left behind who were killed while they replaced the file at path. The caller must be the
// only one who writes it.
func Sweep(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("remove temporary files of %s: %w", path, err)
	}
	var errs []error
	for _, e := range entries {
		random, ok := strings.CutPrefix(e.Name(), prefix(path))
		if !ok || random == "" || strings.Trim(random, "0123456789") != "" {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove temporary file: %w", err))
		}
	}
	return errors.Join(errs...)
}

// prefix begins the names of temporary files. The leading dot hides them from those who read all files of the folder.
func prefix(path string) string { return "." + filepath.Base(path) + "." }

func write(path string, data []byte, mode fs.FileMode, sync bool) error {
	if err := replace(path, data, mode, sync); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func replace(path string, data []byte, mode fs.FileMode, sync bool) error {
	return replaceBy(path, mode, sync, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func replaceBy(path string, mode fs.FileMode, sync bool, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), prefix(path)+"*")
	if err != nil {
		return err
	}
	err = errors.Join(fill(f), f.Chmod(mode))
	if sync {
		err = errors.Join(err, f.Sync())
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if sync {
		return syncDir(filepath.Dir(path))
	}
	return nil
}

// syncDir makes a rename in dir survive: the name is the folder's data, not the file's.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
