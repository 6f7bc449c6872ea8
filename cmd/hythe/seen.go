package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/kube/seen"
	"hythe.dev/hythe/internal/model"
)

// readSeen reads when objects came, as the controller before this one wrote it. If that is lost, what holds something counts
// as there before all else; that is written at once, so that nobody sees another order first. The Problem stays as long as
// the process: that a note could be written again does not bring the order back.
func (c *controller) readSeen() {
	c.seenIn = nil
	path := filepath.Join(c.state, seen.File)
	var err error
	c.seen, err = seen.Read(path)
	missing := errors.Is(err, fs.ErrNotExist)
	held := c.held()
	if err == nil || missing && len(held.Claims)+held.Services.Len()+held.Ingresses.Len()+len(held.Pools) == 0 {
		return // nothing was lost, or this is the first start
	}
	what := "It is gone"
	if !missing {
		c.broken = true
		what = "It could not be read (" + reason(err) + ") and is kept as " + path + ".broken"
	}
	c.lost = []model.Problem{model.Problemf(model.ObjectRef{Kind: "File", Name: path}, "OrderLost",
		"%s: of objects that came at a time not known any more those that hold an address come first, then it goes by name. "+
			"Where the wrong one has a host, give the right one a metadata.creationTimestamp in its manifest, or put a good copy "+
			"of the file back while the controller is stopped. Restart the controller when the order is right", what)}
	if err := c.writeSeen(c.seen.Recover(held, time.Now())); err != nil {
		c.log.Error("it is not written which objects came first", "error", err)
	}
}

// held is what the controller before this one wrote of objects, of all that can be read.
func (c *controller) held() *model.Snapshot {
	var paths []string
	for _, name := range []string{claimsFile, kube.StatusFile} {
		if path := filepath.Join(c.state, name); exists(path) {
			paths = append(paths, path)
		}
	}
	s, err := kube.Load(paths...)
	if err != nil {
		c.log.Error("it is not known which objects hold an address", "error", err)
		return &model.Snapshot{}
	}
	return s
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// noteSeen writes when objects came that have no creation time.
func (c *controller) noteSeen(s *model.Snapshot, now time.Time) error {
	next := c.seen.Next(c.seenIn, s, now)
	c.seenIn = s
	return c.writeSeen(next)
}

// writeSeen replaces the note. A broken one is kept beside it, the last such: people may find the order in it.
func (c *controller) writeSeen(t seen.Times) error {
	c.seen = t
	path := filepath.Join(c.state, seen.File)
	if c.broken {
		if err := os.Rename(path, path+".broken"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return notWritten{path, err}
		}
		c.broken = false
	}
	_, err := writeState(path, []*corev1.ConfigMap{t.ConfigMap()})
	return err
}

// writeState writes a file of the state folder, and says whether it held something else.
func writeState[T any](path string, objects []T) (bool, error) {
	wrote, err := kube.WriteObjects(path, objects)
	if err != nil {
		return false, notWritten{path, err}
	}
	return wrote, nil
}

// A notWritten is the error of a file of the state folder. It reads the same each time, whatever the temporary file's name.
type notWritten struct {
	path string
	err  error
}

func (e notWritten) Error() string { return "write " + e.path + ": " + reason(e.err) }
func (e notWritten) Unwrap() error { return e.err }

func (e notWritten) problem() model.Problem {
	return model.Problemf(model.ObjectRef{Kind: "File", Name: e.path}, "NotWritten",
		"%s: claims and status stay as they were written last, and nothing new gets an address. Make the folder writable for the "+
			"controller and room on its disk; it tries again each second", reason(e.err))
}

// reason is the kernel's word for what went wrong, if it said one.
func reason(err error) string {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
