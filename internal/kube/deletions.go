package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

const (
	// deletedFew is how long a deletion waits for more of its kind before it is believed.
	deletedFew = 300 * time.Millisecond
	// deletedMost is how long the deletion of half of a kind or more waits before it is asked whether the kind is served.
	deletedMost = time.Second
	// deletedRead is the same for those that only read a kind: who writes it may have written it again before.
	deletedRead = 2 * time.Second
	// deletedReports is the same for Reports, few or many: the writer's reportAgain, and some time to write.
	deletedReports = 45 * time.Second
	// servedTimeout bounds the question whether a kind is served.
	servedTimeout = 5 * time.Second
)

// deletions are claims and Reports that are deleted, as a watch told, and still in use. Who deletes a
// CustomResourceDefinition deletes all its objects first, and only then the kind goes: nodes must not end all VIPs for that.
// A Report is deleted by mistake, or because its node is gone.
type deletions struct {
	keys  map[model.Key]bool
	last  time.Time     // of the newest
	again time.Duration // wait since the last look that found the kind gone, or no answer; zero: there was none
}

func (d *deletions) add(key model.Key, now time.Time) {
	d.keys[key], d.last, d.again = true, now, 0
}

// due says whether to decide now, and whether to ask before that if the kind is served.
func (d *deletions) due(now time.Time, objects int, few, most time.Duration) (decide, ask bool) {
	quiet := now.Sub(d.last)
	if 2*len(d.keys) < objects {
		return len(d.keys) > 0 && quiet >= few, false
	}
	return len(d.keys) > 0 && quiet >= max(most, d.again), true
}

// grace is how long the deletion of few objects waits, and that of most.
func (r *replica) grace() (few, most time.Duration) {
	switch {
	case r.kind == "Report":
		return deletedReports, deletedReports
	case r.bare:
		return deletedFew, deletedRead
	}
	return deletedFew, deletedMost
}

// believe ends the wait of deletions: they are true if few, or if the API server goes on to serve the kind. Else the
// objects stay until it does again, see doubts.
func (r *replica) believe(ctx context.Context, from *rest.RESTClient) error {
	r.mu.Lock()
	few, most := r.grace()
	decide, ask := r.deletions.due(time.Now(), len(r.objects), few, most)
	last := r.deletions.last
	r.mu.Unlock()
	if !decide {
		return nil
	}
	var err error
	is := true
	if ask {
		is, err = served(ctx, from, r.resource.Name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.deletions.last.Equal(last) {
		return err // there are more of them
	}
	if !is {
		r.lost = r.lost || err == nil
		r.deletions.last, r.deletions.again = time.Now(), min(max(2*r.deletions.again, confirmAgain), confirmSlow)
		return err
	}
	for key := range r.deletions.keys {
		r.remove(key)
	}
	r.changed()
	return nil
}

// served says whether the API server serves a kind of Hythe's own and goes on to do so: while a definition is being deleted,
// its objects can be created no more.
func served(ctx context.Context, from *rest.RESTClient, resource string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, servedTimeout)
	defer cancel()
	data, err := from.Get().AbsPath("/apis", v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.Version).Do(ctx).Raw()
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case apierrors.IsForbidden(err): // by default all may ask
		return true, nil
	case err != nil:
		return false, fmt.Errorf("ask if %s are served: %w", resource, err)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(data, &list); err != nil {
		return false, fmt.Errorf("ask if %s are served: %w", resource, err)
	}
	return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool {
		return r.Name == resource && slices.Contains(r.Verbs, "create")
	}), nil
}
