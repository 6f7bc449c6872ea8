package stamp

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Of reads the stamp of a file; of a symbolic link, that of the file it leads to.
func Of(name string) (Stamp, error) {
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x); err != nil {
		return Stamp{}, fmt.Errorf("stat %s: %w", name, err)
	}
	s := Stamp{Size: int64(x.Size), Changed: timeOf(x.Mtime)}
	s.Inode = x.Ino
	if x.Mask&unix.STATX_BTIME != 0 {
		s.Born = timeOf(x.Btime)
	}
	return s, nil
}

func timeOf(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
