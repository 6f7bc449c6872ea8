package run

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A question is one request under /inspect that was sent and not answered yet.
type question struct {
	*httptest.ResponseRecorder
	done  chan struct{}
	leave context.CancelFunc
}

func put(t *testing.T, h http.Handler, path string) *question {
	ctx, cancel := context.WithCancel(t.Context())
	q := &question{httptest.NewRecorder(), make(chan struct{}), cancel}
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	req.Header.Set(InspectHeader, "1")
	go func() {
		defer close(q.done)
		h.ServeHTTP(q, req)
	}()
	synctest.Wait()
	return q
}

func (q *question) answered() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// TestInspectHeader asks as a browser does, or a server that fetches URLs for others: nothing is done for them.
func TestInspectHeader(t *testing.T) {
	asked := false
	h := Admin{Inspect: map[string]Inspector{"arp": func(context.Context, url.Values) (any, error) {
		asked = true
		return 1, nil
	}}}.Handler()
	for header, code := range map[string]int{"": 403, InspectHeader: 200} {
		w, req := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/inspect/arp", nil)
		if header != "" {
			req.Header.Set(header, "1")
		}
		h.ServeHTTP(w, req)
		if w.Code != code || asked != (code == 200) || code == 403 && !strings.Contains(w.Body.String(), InspectHeader+": 1") {
			t.Errorf("header %q: %d %q, asked %t; want %d", header, w.Code, w.Body, asked, code)
		}
		asked = false
	}
}

// TestInspectAtOnce asks more than is answered at once: the rest waits, and who goes away does not wait.
func TestInspectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, running := make(chan struct{}), 0
		var mu sync.Mutex
		slow := func(context.Context, url.Values) (any, error) {
			mu.Lock()
			running++
			mu.Unlock()
			<-release
			return 1, nil
		}
		h := Admin{Inspect: map[string]Inspector{"a": slow, "b": slow}}.Handler()
		var all []*question
		for _, path := range []string{"/inspect/a", "/inspect/b", "/inspect/a?x=1", "/inspect/b"} {
			all = append(all, put(t, h, path))
		}
		if running != answersAtOnce {
			t.Fatalf("%d answers are made at once, want %d", running, answersAtOnce)
		}
		all[3].leave()
		synctest.Wait()
		if !all[3].answered() || all[3].Code != http.StatusServiceUnavailable {
			t.Errorf("one that went away: answered %t, %d", all[3].answered(), all[3].Code)
		}
		time.Sleep(answerWithin)
		synctest.Wait()
		if !all[2].answered() || all[2].Code != http.StatusServiceUnavailable {
			t.Errorf("after %s: answered %t, %d", answerWithin, all[2].answered(), all[2].Code)
		}
		last := put(t, h, "/inspect/b")
		close(release)
		synctest.Wait()
		if running != 3 || last.Code != http.StatusOK || all[0].Code != http.StatusOK {
			t.Errorf("after the end: %d answers, codes %d and %d", running, last.Code, all[0].Code)
		}
	})
}

// TestInspectShared asks the same more than once: all who wait get one answer, at most one is made a second, and none is
// older than its question.
func TestInspectShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan error)
		var first, second atomic.Int64
		g := newGate([]string{"check"})
		h := g.handle("check", func(ctx context.Context, q url.Values) (any, error) {
			made := &first
			if q.Get("x") != "" {
				made = &second
			}
			n := made.Add(1)
			select {
			case err := <-release:
				return n, err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		const path = "/inspect/check"
		one, two, other := put(t, h, path), put(t, h, path), put(t, h, path+"?x=1")
		if first.Load() != 1 || second.Load() != 1 {
			t.Fatalf("made %d and %d, want one for each question", first.Load(), second.Load())
		}
		// The first one goes away: its answer is nobody's.
		one.leave()
		synctest.Wait()
		if !one.answered() || two.answered() || first.Load() != 1 {
			t.Fatalf("after the first went away: made %d", first.Load())
		}
		time.Sleep(answersApart / 2)
		three := put(t, h, path)
		time.Sleep(answersApart / 2)
		synctest.Wait()
		time.Sleep(time.Millisecond)
		late := put(t, h, path) // while the answer is made
		release <- nil
		release <- nil
		synctest.Wait()
		if !two.answered() || !three.answered() || !other.answered() || first.Load() != 2 || two.Body.String() != three.Body.String() {
			t.Fatalf("made %d, answers %q and %q", first.Load(), two.Body, three.Body)
		}
		if late.answered() {
			t.Error("an answer was given that is older than the question")
		}
		time.Sleep(answersApart)
		release <- errors.New("broken")
		synctest.Wait()
		if first.Load() != 3 || late.Code != http.StatusInternalServerError {
			t.Errorf("after a second: made %d, %d", first.Load(), late.Code)
		}
		time.Sleep(3 * answersApart)
		synctest.Wait()
		if len(g.answers) != 0 {
			t.Errorf("%d answers are kept for ever", len(g.answers))
		}
	})
}
