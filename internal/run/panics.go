package run

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// Panics counts the panics that a process caught, and logs each place once. A nil one takes note of nothing.
type Panics struct {
	log   *slog.Logger
	total *prometheus.CounterVec

	mu   sync.Mutex
	seen map[string]*caughtPlace // by stack
	list []*caughtPlace          // in the order of their first panic
}

// A caughtPlace is a place in the code that panicked.
type caughtPlace struct {
	part, what, stack string
	times             uint64
}

// mostPlaces bounds what is remembered; the counter counts all.
const mostPlaces = 100

// NewPanics registers the counter. parts are the values of its label part: a process that never panicked says so.
func NewPanics(reg prometheus.Registerer, log *slog.Logger, parts ...string) (*Panics, error) {
	p := &Panics{log: log, seen: map[string]*caughtPlace{}, total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "hythe_panics_total", Help: "Panics that were caught, each of which cost one object or one attempt.",
	}, []string{"part"})}
	for _, part := range parts {
		p.total.WithLabelValues(part)
	}
	if err := reg.Register(p.total); err != nil {
		return nil, fmt.Errorf("register metrics of panics: %w", err)
	}
	return p, nil
}

// Problems takes note of those that a Build made of panics. part is the Build's, one of a few.
func (p *Panics) Problems(part string, problems []model.Problem) {
	for _, problem := range problems {
		if problem.Stack != "" {
			p.note(part, problem.Object.String()+": "+problem.Message, problem.Stack)
		}
	}
}

// Err takes note of all panics that are in err, and returns it.
func (p *Panics) Err(part string, err error) error {
	for _, caught := range panicsIn(err) {
		p.note(part, caught.Error(), caught.Stack)
	}
	return err
}

func panicsIn(err any) []*contain.Panic {
	var out []*contain.Panic
	switch e := err.(type) {
	case *contain.Panic:
		out = append(out, e)
	case interface{ Unwrap() error }:
		out = panicsIn(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			out = append(out, panicsIn(one)...)
		}
	}
	return out
}

func (p *Panics) note(part, what, stack string) {
	if p == nil {
		return
	}
	p.total.WithLabelValues(part).Inc()
	p.mu.Lock()
	defer p.mu.Unlock()
	place := p.seen[part+stack]
	if place == nil {
		if len(p.list) == mostPlaces {
			return
		}
		place = &caughtPlace{part: part, what: what, stack: stack}
		p.seen[part+stack], p.list = place, append(p.list, place)
		p.log.Error("panic caught, please report it", "part", part, "what", what, "stack", stack)
	}
	place.times++
}

// WriteText writes the places, for people.
func (p *Panics) WriteText(w io.Writer) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) == 0 {
		fmt.Fprintln(w, "no panics")
	}
	for _, place := range p.list {
		fmt.Fprintf(w, "%s, %d times, at first: %s\n\t%s\n", place.part, place.times, place.what, strings.ReplaceAll(place.stack, "\n", "\n\t"))
	}
}
