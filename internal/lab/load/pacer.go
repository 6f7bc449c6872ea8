package load

import (
	"context"
	"time"
)

// A Pacer keeps to a schedule: what was late is made up for.
type Pacer struct {
	next     time.Time
	interval time.Duration
}

// NewPacer makes a schedule that begins now.
func NewPacer(interval time.Duration) *Pacer { return &Pacer{next: time.Now(), interval: interval} }

// Wait waits for the next moment of the schedule and says whether to go on.
func (p *Pacer) Wait(ctx context.Context) bool {
	p.next = p.next.Add(p.interval)
	timer := time.NewTimer(time.Until(p.next))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
