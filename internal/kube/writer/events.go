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

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
)

const (
	// eventAgain is how often an Event is renewed while its Problem lasts; API servers keep Events for an hour.
	eventAgain = 30 * time.Minute
	// eventApart is the least time between two Events that say the same, and the time in which an object may have one more.
	eventApart = time.Minute
	// eventBurst is how many Events one object may have at once.
	eventBurst = 10
	// eventMessage is the longest message of an Event, in bytes (validation of core/v1).
	eventMessage = 1024
	// eventReporter is what Events name as their source.
	eventReporter = "hythe-controller"
)

// An occasion is what an Event tells: a Problem, or news.
type occasion struct {
	model.Problem
	normal bool // news
}

// events turns Problems and news into Events. An Event is named by what it says, so that a restart, or another leader,
// counts up the one that is there.
type events struct {
	clients *client.Clients
	limit   *rate.Limiter
	objects map[model.ObjectRef]*rate.Limiter // each object's own
	posted  map[occasion]time.Time
}

func newEvents(c *client.Clients) events {
	return events{clients: c, limit: rate.NewLimiter(5, 50), objects: map[model.ObjectRef]*rate.Limiter{}, posted: map[occasion]time.Time{}}
}

// errTooMany is why an Event has to wait.
var errTooMany = errors.New("too many at once, later")

// set posts an Event for each Problem that is new or was not told for long, and for all news. What comes and goes is
// told once a minute. Problems above the limit have to wait for a later call, news are dropped.
func (e *events) set(ctx context.Context, s *model.Snapshot, problems, news []model.Problem) error {
	var errs []error
	stands := map[occasion]bool{}
	for _, p := range problems {
		o := occasion{Problem: p}
		stands[o] = true
		if at, ok := e.posted[o]; ok && time.Since(at) < eventAgain {
			continue
		}
		err := e.tell(ctx, s, o)
		if err != nil {
			errs = append(errs, err)
		}
		if errors.Is(err, errTooMany) {
			break
		}
	}
	for _, p := range news {
		if err := e.tell(ctx, s, occasion{p, true}); err != nil && !errors.Is(err, errTooMany) {
			errs = append(errs, err)
		}
	}
	e.forget(stands)
	return errors.Join(errs...)
}

// tell posts an Event, unless many about the same object were posted a moment ago.
func (e *events) tell(ctx context.Context, s *model.Snapshot, o occasion) error {
	object, ok := eventObject(s, o.Object)
	if !ok {
		return nil
	}
	own := e.objects[o.Object]
	if own == nil {
		own = rate.NewLimiter(rate.Every(eventApart), eventBurst)
		e.objects[o.Object] = own
	}
	if own.Tokens() < 1 {
		return nil
	}
	if !e.limit.Allow() {
		return fmt.Errorf("post Event about %s: %w", o.Object, errTooMany)
	}
	own.Allow()
	if err := contain.Call(func() error { return e.post(ctx, object, o) }); err != nil {
		return err
	}
	e.posted[o] = time.Now()
	return nil
}

// forget drops what limits no more. stands are the Problems that last.
func (e *events) forget(stands map[occasion]bool) {
	for o, at := range e.posted {
		if !stands[o] && time.Since(at) >= eventApart {
			delete(e.posted, o)
		}
	}
	for ref, own := range e.objects {
		if own.Tokens() >= eventBurst {
			delete(e.objects, ref)
		}
	}
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
		if o := s.Ingresses.Get(key); o != nil {
			object = o
		}
	case "Service":
		if o := s.Services.Get(key); o != nil {
			object = o
		}
	case "GatewayConfig":
		if o := s.GatewayConfigs[ref.Name]; o != nil {
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
func (e *events) post(ctx context.Context, object corev1.ObjectReference, p occasion) error {
	namespace := object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	sum := sha256.Sum256([]byte(fmt.Sprint(object.Kind, object.UID, p.Problem)))
	now, kind := metav1.Now(), corev1.EventTypeWarning
	if p.normal {
		kind = corev1.EventTypeNormal
	}
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: eventName(object.Name) + "." + hex.EncodeToString(sum[:8])},
		InvolvedObject: object, Reason: p.Reason, Message: truncate(p.Message, eventMessage), Type: kind,
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
