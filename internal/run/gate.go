package run

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	// InspectHeader must be in each question under /inspect, with any value. A browser on another page, and a server that
	// can be talked into fetching a URL, cannot send it: the answers cost much, and some of them send packets.
	InspectHeader = "Hythe-Inspect"

	// answersAtOnce is how many answers under /inspect are made at the same time. Others wait.
	answersAtOnce = 2
	// answersApart is the least time between two answers to the same question, for those of Admin.Shared. It is waited
	// for: an old answer would show what somebody has just repaired.
	answersApart = time.Second
	// answerWithin bounds an answer, waiting included.
	answerWithin = 60 * time.Second
)

// A gate bounds what the answers of one process may cost, whoever asks.
type gate struct {
	shared []string
	slots  chan struct{}

	mu      sync.Mutex
	answers map[string]*shared // by name and query
}

// shared is an answer for all who ask the same.
type shared struct {
	turn chan struct{} // full while somebody makes the answer
	out  any
	err  error
	from time.Time // when it was begun; zero: there is none
	at   time.Time // when the last one was done, also if nobody was there to take it

	asking int // guarded by the gate's mu
}

func newGate(names []string) *gate {
	return &gate{shared: names, slots: make(chan struct{}, answersAtOnce), answers: map[string]*shared{}}
}

// handle answers one question.
func (g *gate) handle(name string, answer Inspector) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(InspectHeader) == "" {
			http.Error(w, "Use hythe get, hythe check or hythe trace; other programs send the header "+InspectHeader+": 1.", http.StatusForbidden)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		ask := g.answer
		if slices.Contains(g.shared, name) {
			ask = g.share
		}
		query := r.URL.Query()
		inspect(w, r.WithContext(ctx), func(ctx context.Context, _ url.Values) (any, error) {
			return ask(ctx, name+"?"+query.Encode(), func() (any, error) { return answer(ctx, query) })
		})
	}
}

// answer makes an answer when there is room.
func (g *gate) answer(ctx context.Context, _ string, answer func() (any, error)) (any, error) {
	if err := enter(ctx, g.slots); err != nil {
		return nil, err
	}
	defer func() { <-g.slots }()
	return answer()
}

// share makes an answer, or takes one that was begun after the question: those who ask the same wait for each other.
func (g *gate) share(ctx context.Context, key string, answer func() (any, error)) (any, error) {
	asked := time.Now()
	s := g.join(key)
	defer g.leave(key, s)
	if err := enter(ctx, s.turn); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	if !s.from.IsZero() && !s.from.Before(asked) {
		return s.out, s.err
	}
	select {
	case <-time.After(answersApart - time.Since(s.at)):
	case <-ctx.Done():
		return nil, busy(ctx)
	}
	from := time.Now()
	out, err := g.answer(ctx, key, answer)
	s.at = time.Now()
	if ctx.Err() == nil { // else the error is that of one who went away
		s.out, s.err, s.from = out, err, from
	}
	return out, err
}

func (g *gate) join(key string) *shared {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.answers[key]
	if s == nil {
		s = &shared{turn: make(chan struct{}, 1)}
		g.answers[key] = s
	}
	s.asking++
	return s
}

// leave forgets an answer when nobody waits for it any more, and it is old.
func (g *gate) leave(key string, s *shared) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.asking--; s.asking > 0 {
		return
	}
	time.AfterFunc(answersApart, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if s.asking == 0 && time.Since(s.at) >= answersApart && g.answers[key] == s {
			delete(g.answers, key)
		}
	})
}

// enter waits for room in slots.
func enter(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return busy(ctx)
	}
}

func busy(ctx context.Context) error {
	return fmt.Errorf("wait for answers to others: %w", errors.Join(errBusy, ctx.Err()))
}

// errBusy says that others ask too much.
var errBusy = errors.New("too many questions at once")
