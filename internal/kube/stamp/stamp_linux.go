package stamp

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Of reads the stamp of a file; of a symbolic link, that of the file it leads to.
//
// renamed says that the file got its name, or its mode, later than its content: its time of change is after that of its
// content, while a write sets both to one time. A rename in the same tick of the kernel's clock as the last write does
// not show: that may as well be a file that is being written.
func Of(name string) (s Stamp, renamed bool, err error) {
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x); err != nil {
		return Stamp{}, false, fmt.Errorf("stat %s: %w", name, err)
	}
	s = Stamp{Size: int64(x.Size), Changed: timeOf(x.Mtime)}
	s.Inode = x.Ino
	if x.Mask&unix.STATX_BTIME != 0 {
		s.Born = timeOf(x.Btime)
	}
	return s, timeOf(x.Ctime).After(s.Changed), nil
}

func timeOf(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }
