package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hythe.dev/hythe/internal/model"
)

// Reasons of Problems with the API server itself. The last state of what it does not give stays in use.
const (
	ReasonAPIServerAway = "APIServerAway" // it does not answer, or has no state to give
	ReasonUnauthorized  = "Unauthorized"  // it does not know who asks
	ReasonForbidden     = "Forbidden"     // it does not give one kind to who asks
	ReasonKindNotServed = "KindNotServed" // it does not know a kind
)

// ReasonCacheNotWritten is that of the Problem that a start without the API server would begin with an old state.
const ReasonCacheNotWritten = "CacheNotWritten"

// A complaint is why there is no state: a reason and, where only that is concerned, a kind.
type complaint struct{ reason, kind string }

// complaintOf reads why a request of a replica failed.
func complaintOf(r *replica, err error) complaint {
	switch {
	case apierrors.IsUnauthorized(err):
		return complaint{reason: ReasonUnauthorized}
	case apierrors.IsForbidden(err):
		return complaint{ReasonForbidden, r.kind}
	case apierrors.IsNotFound(err):
		return complaint{ReasonKindNotServed, r.kind}
	}
	return complaint{reason: ReasonAPIServerAway}
}

// complaints returns what is wrong for longer than silence, with the words of before as long as it lasts.
func (a *API) complaints(before map[complaint]model.Problem) map[complaint]model.Problem {
	out := map[complaint]model.Problem{}
	for _, r := range a.replicas {
		since, err := r.silent()
		if since.IsZero() || time.Since(since) <= silence {
			continue
		}
		c := complaintOf(r, err)
		if p, ok := before[c]; ok {
			out[c] = p
		} else if _, ok := out[c]; !ok {
			out[c] = a.complain(c, r, since, err)
		}
	}
	return out
}

func (a *API) complain(c complaint, r *replica, since time.Time, err error) model.Problem {
	if err == nil {
		err = fmt.Errorf("no answer to a request for %s", r)
	}
	remedy := "look at the API server and the way to it"
	switch c.reason {
	case ReasonUnauthorized:
		remedy = "renew the credentials of this process"
	case ReasonForbidden:
		remedy = fmt.Sprintf("give the role of this process the verbs get, list and watch on %s", r.resource.GV.WithResource(r.resource.Name).GroupResource())
	case ReasonKindNotServed:
		remedy = fmt.Sprintf("install the definition of %s", r.resource.GV.WithResource(r.resource.Name).GroupResource())
	}
	what := "state"
	if c.kind != "" {
		what += " of " + c.kind
	}
	use := "the last one stays in use"
	if a.waits() {
		use = "nothing is done until there is one"
	}
	return model.Problemf(a.ref(), c.reason, "no %s since %s, %s: %s: %v", what, since.UTC().Format(time.RFC3339), use, remedy, err)
}

// waits says whether there is no state at all yet: neither all kinds of the API server's, nor one kept on the node.
func (a *API) waits() bool {
	if a.cachedAt.Load() != nil {
		return false
	}
	return slices.ContainsFunc(a.replicas, func(r *replica) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return !r.synced
	})
}

// Problems says what the API server does not give for some seconds, and why: also before the first Snapshot, which would
// have the same Problems.
func (a *API) Problems() []model.Problem {
	var out []model.Problem
	if said := a.said.Load(); said != nil {
		for c, p := range *said {
			if a.lasts(c) { // else it is back since a moment ago
				out = append(out, p)
			}
		}
	}
	return model.SortProblems(out)
}

// lasts says whether a complaint is still true.
func (a *API) lasts(c complaint) bool {
	for _, r := range a.replicas {
		if since, err := r.silent(); !since.IsZero() && complaintOf(r, err) == c {
			return true
		}
	}
	return false
}

// watchdog says once that the API server gives no state, or none of a kind, and once that it does again: in the log, and by
// a Snapshot of the same state with, or without, the Problem.
func (a *API) watchdog(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	said := map[complaint]model.Problem{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := a.complaints(said)
		if maps.Equal(now, said) {
			continue
		}
		for c, p := range now {
			if _, ok := said[c]; !ok {
				a.log.Warn(p.Message, "server", a.host, "reason", c.reason)
			}
		}
		for c := range said {
			if _, ok := now[c]; !ok {
				a.log.Info("the API server gives state again", "server", a.host, "reason", c.reason, "kind", c.kind)
			}
		}
		said = now
		a.said.Store(&now)
		a.notify()
	}
}

// missing says in brackets which kinds the API server has not given yet, and why the first of them.
func (a *API) missing() string {
	for _, r := range a.replicas {
		r.mu.Lock()
		synced, err := r.synced, r.err
		r.mu.Unlock()
		if !synced && err != nil {
			return fmt.Sprintf(" (%s: %v)", r, err)
		}
	}
	return ""
}
