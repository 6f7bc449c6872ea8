package kube

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
)

const (
	// holdAbove is how many objects of a kind may be missing in a new list, however few there are, before it is doubted.
	holdAbove = 3
	// holdFor is how long what is missing stays in use before a second reading is asked for, and up to as long again: all
	// nodes see the same list, and their second readings must not meet an API server that has just come back all at once.
	holdFor = 10 * time.Second
	// confirmAgain is the wait after a second reading that failed. It doubles each time, up to confirmSlow.
	confirmAgain, confirmSlow = time.Second, 30 * time.Second
	// confirmTimeout bounds the second reading.
	confirmTimeout = 30 * time.Second
)

// doubtful says whether a new list lacks so much that it may be that of an API server, or an etcd, which lags behind or
// was restored: more than half of a kind. What somebody deletes while the watch runs is believed at once, of
// Hythe's own kinds a moment later: see deletions.
func doubtful(missing, before int) bool { return missing > holdAbove && 2*missing > before }

// doubts says whether what a new list lacks is held. Of a kind that was not served and is again, all is: who writes its
// objects must have the time to do so again. That is the controller for claims, which therefore believes the list.
// It is called with mu held.
func (r *replica) doubts(missing, before int) bool {
	if r.lost {
		return missing > 0 && (r.bare || r.kind != "AddressClaim")
	}
	return doubtful(missing, before)
}

// hold keeps what a list lacks. It is called with mu held.
func (r *replica) hold(missing []model.Key, before int) {
	if r.heldAt.IsZero() {
		r.heldAt = time.Now()
		r.confirmAt, r.confirmWait = r.heldAt.Add(holdFor+r.jitter(holdFor)), confirmAgain
		r.heldText = fmt.Sprintf("a new list of %s lacks %d of %d: they stay in use until a second reading confirms it", r.resource.Name, len(missing), before)
	}
	for _, key := range missing {
		r.held[key] = true
		delete(r.deletions.keys, key)
	}
}

// jitter is a random time up to most. It is called with mu held.
func (r *replica) jitter(most time.Duration) time.Duration {
	return time.Duration(r.random.Int64N(int64(most)))
}

// putOff puts the next reading off after one that failed.
func (r *replica) putOff() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.confirmAt = time.Now().Add(r.confirmWait + r.jitter(r.confirmWait))
	r.confirmWait = min(2*r.confirmWait, confirmSlow)
}

// release ends the doubt about an object. It is called with mu held.
func (r *replica) release(key model.Key) {
	delete(r.held, key)
	delete(r.deletions.keys, key)
	if len(r.held) == 0 {
		r.heldAt, r.heldText = time.Time{}, ""
	}
}

// confirm reads the kind again, from etcd and not from the API server's memory, when something is held for long enough,
// and believes the result.
func (r *replica) confirm(ctx context.Context, list lister) error {
	r.mu.Lock()
	due := !r.heldAt.IsZero() && !time.Now().Before(r.confirmAt)
	r.mu.Unlock()
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	// No resourceVersion: the most recent state (API concepts, "Semantics for get and list").
	found, err := list(ctx, metav1.ListOptions{FieldSelector: r.selector.String(), LabelSelector: r.labels})
	if err != nil {
		r.putOff()
		return fmt.Errorf("read %s again: %w", r.resource.Name, err)
	}
	objects, err := meta.ExtractList(found)
	if err != nil {
		r.putOff()
		return fmt.Errorf("read %s again: %w", r.resource.Name, err)
	}
	present := map[model.Key]bool{}
	for _, object := range objects {
		if o, ok := object.(metav1.Object); ok {
			present[keyOf(o)] = true
		}
	}
	r.mu.Lock()
	for key := range r.held {
		if present[key] {
			r.release(key) // the watch brings it
		} else {
			r.remove(key)
		}
	}
	r.mu.Unlock()
	r.changed()
	return nil
}
