// Package stamp tells whether a manifest file changed, and when to believe what it holds now.
//
// Who writes a file in place empties it first and fills it piece by piece, and many a piece is valid YAML that lacks
// objects. git and tar remove a file before they write it again. To believe a moment between would end what the missing
// objects stand for.
package stamp

import "time"

const (
	// Wait is how long a file must have been the same before a state of it is believed that may be half of one.
	Wait = time.Second
	// Late is how long a file may keep changing before somebody should be told.
	Late = 10 * time.Second
)

// A Stamp tells one state of a file from another. The zero value is that of a file that is gone.
type Stamp struct {
	Size    int64
	Changed time.Time
	Identity
}

// An Identity is the same for a file that was written in place, and another for one that took its name by a rename or was
// made anew. The
// time of birth is in it since a file system gives the inode of a removed file to the next one. File systems that have
// none leave it zero.
type Identity struct {
	Inode uint64
	Born  time.Time
}

// A Doubt is about a file whose new state is not believed yet. The zero value is no doubt.
type Doubt struct {
	stamp        Stamp
	began, since time.Time
}

// Over says whether the file has been in the state s for wait. now is this process's, never the file's time: a clock that is
// set must not make an old file young. Its monotonic part counts.
func (d *Doubt) Over(s Stamp, now time.Time, wait time.Duration) bool {
	if d.began.IsZero() {
		d.began = now
	}
	if d.since.IsZero() || d.stamp != s {
		d.stamp, d.since = s, now
	}
	return now.Sub(d.since) >= wait
}

// Late says whether the file has not been quiet since the doubt began, for longer than Late.
func (d *Doubt) Late(now time.Time) bool { return !d.began.IsZero() && now.Sub(d.began) > Late }
