package server

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// listen makes the socket under a temporary name and renames it, so that it never has another mode than 0660 and
// takes the place of a predecessor's at once.
func listen(path string, allow []uint32, log *slog.Logger) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make socket folder: %w", err)
	}
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// A successor may have its own socket there by the time that this one is closed.
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(next, 0o660), os.Rename(next, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("place socket: %w", err), l.Close())
	}
	allow = append([]uint32{0, uint32(os.Geteuid())}, allow...)
	return &peerListener{UnixListener: l, allow: allow, log: log}, nil
}

// A peerListener accepts connections of some users only: the configuration holds private keys.
type peerListener struct {
	*net.UnixListener
	allow []uint32
	log   *slog.Logger
}

// Accept returns the next connection of an allowed user.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && slices.Contains(l.allow, uid) {
			return c, nil
		}
		l.log.Warn("refused a connection to the xDS socket", "uid", uid, "error", err)
		_ = c.Close()
	}
}

// peerUID asks the kernel who is on the other side (SO_PEERCRED, unix(7)).
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("get peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("get peer credentials: %w", err)
	}
	return cred.Uid, nil
}
