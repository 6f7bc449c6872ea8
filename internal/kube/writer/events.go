package writer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
)

const (
	// eventAgain is how often an Event is renewed while its Problem lasts; API servers keep Events for an hour.
	eventAgain = 30 * time.Minute
	// eventMessage is the longest message of an Event, in bytes (validation of core/v1).
	eventMessage = 1024
	// eventReporter is what Events name as their source.
	eventReporter = "hythe-controller"
)

// events turns Problems into Events. An Event is named by what it says, so that a restart, or another leader, counts
// up the one that is there.
type events struct {
	clients *client.Clients
	limit   *rate.Limiter
	posted  map[model.Problem]time.Time
}

func newEvents(c *client.Clients) events {
	return events{clients: c, limit: rate.NewLimiter(5, 50), posted: map[model.Problem]time.Time{}}
}

// set posts an Event for each Problem that is new or was not told for long. Those above the limit have to wait for a
// later call.
func (e *events) set(ctx context.Context, s *model.Snapshot, problems []model.Problem) error {
	var errs []error
	now := map[model.Problem]bool{}
	for _, p := range problems {
		now[p] = true
	}
	for _, p := range problems {
		if at, ok := e.posted[p]; ok && time.Since(at) < eventAgain {
			continue
		}
		object, ok := eventObject(s, p.Object)
		if !ok {
			continue
		}
		if !e.limit.Allow() {
			errs = append(errs, fmt.Errorf("post Event about %s: too many at once, later", p.Object))
			break
		}
		if err := run.Guard(func() error { return e.post(ctx, object, p) }); err != nil {
			errs = append(errs, err)
			continue
		}
		e.posted[p] = time.Now()
	}
	for p := range e.posted {
		if !now[p] {
			delete(e.posted, p)
		}
	}
	return errors.Join(errs...)
}

// eventObject is the reference to an object that an Event needs, or false for what is no object of the API.
func eventObject(s *model.Snapshot, ref model.ObjectRef) (corev1.ObjectReference, bool) {
	r, ok := client.ResourceOf(ref.Kind)
	if !ok {
		return corev1.ObjectReference{}, false
	}
	out := corev1.ObjectReference{APIVersion: r.GV.String(), Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
	key := model.Key{Namespace: ref.Namespace, Name: ref.Name}
	var object metav1.Object
	switch ref.Kind {
	case "Ingress":
		if o := s.Ingresses[key]; o != nil {
			object = o
		}
	case "Service":
		if o := s.Services[key]; o != nil {
			object = o
		}
	case "AddressPool":
		if o := s.Pools[ref.Name]; o != nil {
			object = o
		}
	case "AddressClaim":
		if o := s.Claims[ref.Name]; o != nil {
			object = o
		}
	case "Node":
		out.UID = types.UID(ref.Name) // as the kubelet does, so that kubectl describe finds it
	}
	if object != nil {
		out.UID = object.GetUID()
	}
	return out, true
}

// post creates an Event, or counts up the one that is there.
func (e *events) post(ctx context.Context, object corev1.ObjectReference, p model.Problem) error {
	namespace := object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	sum := sha256.Sum256([]byte(fmt.Sprint(object.Kind, object.UID, p)))
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: eventName(object.Name) + "." + hex.EncodeToString(sum[:8])},
		InvolvedObject: object, Reason: p.Reason, Message: truncate(p.Message, eventMessage), Type: corev1.EventTypeWarning,
		Source: corev1.EventSource{Component: eventReporter}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	api := e.clients.ByGV[corev1.SchemeGroupVersion]
	err := api.Post().Namespace(namespace).Resource("events").Body(event).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		err = e.again(ctx, event)
	}
	if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil // its namespace is gone: nobody would read it
	}
	if err != nil {
		return fmt.Errorf("post Event about %s: %w", p.Object, err)
	}
	return nil
}

// again counts up an Event. Of two writers one may be lost, which only costs a count.
func (e *events) again(ctx context.Context, event *corev1.Event) error {
	api := e.clients.ByGV[corev1.SchemeGroupVersion]
	var live corev1.Event
	err := api.Get().Namespace(event.Namespace).Resource("events").Name(event.Name).Do(ctx).Into(&live)
	if err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"count":%d,"lastTimestamp":%q}`, live.Count+1, event.LastTimestamp.UTC().Format(time.RFC3339))
	return api.Patch(types.MergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).Body(patch).Do(ctx).Error()
}

// eventName leaves room for the sum behind it (names have at most 253 bytes).
func eventName(name string) string { return truncate(name, 230) }

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 { // not within a character
		n--
	}
	return s[:n]
}
