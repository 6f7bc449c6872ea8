package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// Desired is what the elected controller wants to stand in the API.
type Desired struct {
	// Claims are all AddressClaims that should exist.
	Claims []*v1alpha1.AddressClaim
	// Services is status.loadBalancer.ingress of Hythe's Services; an empty list clears it.
	Services map[model.Key][]corev1.LoadBalancerIngress
	// Ingresses is status.loadBalancer.ingress of the Ingresses that gateways serve. From all others the addresses of
	// GatewayService are taken away, and nothing else: further controllers may publish addresses of Hythe's.
	Ingresses map[model.Key][]networkingv1.IngressLoadBalancerIngress
	// GatewayService is the Service of the gateways, whose addresses Ingresses get.
	GatewayService model.Key
	// Pools is the status of AddressPools.
	Pools map[string]v1alpha1.AddressPoolStatus
	// Problems become Events.
	Problems []model.Problem
}

// ReasonClaimedByAnother is the reason of the Problem that an address was claimed by somebody else.
const ReasonClaimedByAnother = "ClaimedByAnother"

// unseenFor is how long a Writer believes its own write more than a Snapshot that does not show it.
const unseenFor = 10 * time.Second

// A Writer writes to the API server what Hythe has to say. Set is for the elected controller alone; WriteReport is
// for every gateway and node.
type Writer struct {
	clients *clients
	log     *slog.Logger
	events  events

	mu     sync.Mutex
	unseen map[string]unseenClaim // by name
	report *v1alpha1.Report       // as last written
}

// An unseenClaim was written, and no Snapshot has shown it yet.
type unseenClaim struct {
	claim *v1alpha1.AddressClaim // nil: deleted
	at    time.Time
}

// NewWriter makes a Writer. Nothing is written before Set or WriteReport.
func NewWriter(config *rest.Config, log *slog.Logger) (*Writer, error) {
	c, err := connect(config, 0)
	if err != nil {
		return nil, err
	}
	return &Writer{clients: c, log: log, unseen: map[string]unseenClaim{}, events: newEvents(c)}, nil
}

// Current adds the claims to s that were written and that it does not show yet: watches are late, and a Build from
// an old Snapshot would give an address twice.
func (w *Writer) Current(s *model.Snapshot) *model.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := *s
	out.Claims = make(map[string]*v1alpha1.AddressClaim, len(s.Claims))
	for name, claim := range s.Claims {
		out.Claims[name] = claim
	}
	for name, u := range w.unseen {
		seen := s.Claims[name]
		switch {
		case time.Since(u.at) > unseenFor, sameClaim(seen, u.claim):
			delete(w.unseen, name)
		case u.claim == nil:
			delete(out.Claims, name)
		default:
			out.Claims[name] = u.claim
		}
	}
	return &out
}

func sameClaim(a, b *v1alpha1.AddressClaim) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return reflect.DeepEqual(a.Spec, b.Spec)
}

func (w *Writer) wrote(name string, claim *v1alpha1.AddressClaim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unseen[name] = unseenClaim{claim: claim, at: time.Now()}
}

// Set writes the difference between the Snapshot that d was built from and d. New claims come first, since nothing
// may speak of an address before; then status; then claims that nobody wants are deleted, unless a status still
// names their address. It goes on after an error and returns all of them.
func (w *Writer) Set(ctx context.Context, s *model.Snapshot, d Desired) ([]model.Problem, error) {
	var problems []model.Problem
	var errs []error
	lost := map[string]bool{} // addresses that somebody else got
	for _, claim := range d.Claims {
		problem, err := w.setClaim(ctx, s.Claims[claim.Name], claim)
		if err != nil {
			errs = append(errs, err)
		}
		if problem != nil {
			problems = append(problems, *problem)
		}
		if err != nil || problem != nil {
			lost[claim.Spec.Address] = true
		}
	}
	late := w.setStatus(ctx, s, d, lost, &errs)
	wanted := map[string]bool{}
	for _, claim := range d.Claims {
		wanted[claim.Name] = true
	}
	for name, claim := range s.Claims {
		named := slices.ContainsFunc(claim.Spec.Services, func(r v1alpha1.ServiceRef) bool {
			return late[model.Key{Namespace: r.Namespace, Name: r.Name}]
		})
		if wanted[name] || named {
			continue
		}
		if err := w.deleteClaim(ctx, claim); err != nil {
			errs = append(errs, err)
		}
	}
	if err := w.events.set(ctx, s, append(slices.Clone(d.Problems), problems...)); err != nil {
		errs = append(errs, err)
	}
	return model.SortProblems(problems), errors.Join(errs...)
}

// setClaim creates a claim, or changes it if it is as the Snapshot has it.
func (w *Writer) setClaim(ctx context.Context, old, claim *v1alpha1.AddressClaim) (*model.Problem, error) {
	if old != nil && sameClaim(old, claim) {
		return nil, nil
	}
	client := w.clients.byGV[v1alpha1.GroupVersion]
	if old == nil {
		fresh := &v1alpha1.AddressClaim{Spec: claim.Spec}
		fresh.Name = claim.Name
		err := client.Post().Resource("addressclaims").Body(fresh).Do(ctx).Error()
		if err == nil {
			w.wrote(claim.Name, claim)
			return nil, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("create AddressClaim %s: %w", claim.Name, err)
		}
	}
	var live v1alpha1.AddressClaim
	err := client.Get().Resource("addressclaims").Name(claim.Name).Do(ctx).Into(&live)
	if err != nil {
		return nil, fmt.Errorf("read AddressClaim %s: %w", claim.Name, err)
	}
	if sameClaim(&live, claim) {
		return nil, nil
	}
	if !sameClaim(old, &live) {
		// It is not what the decision was made from. What stands there counts; the next Snapshot will show it.
		w.wrote(claim.Name, &live)
		p := model.Problemf(model.Ref("Service", firstService(claim)), ReasonClaimedByAnother,
			"%s was claimed for %s in the meantime; another address is looked for.", claim.Spec.Address, firstService(&live))
		return &p, nil
	}
	live.Spec = claim.Spec
	if err := client.Put().Resource("addressclaims").Name(live.Name).Body(&live).Do(ctx).Error(); err != nil {
		return nil, fmt.Errorf("update AddressClaim %s: %w", claim.Name, err)
	}
	w.wrote(claim.Name, claim)
	return nil, nil
}

func firstService(claim *v1alpha1.AddressClaim) model.Key {
	if len(claim.Spec.Services) == 0 {
		return model.Key{}
	}
	return model.Key{Namespace: claim.Spec.Services[0].Namespace, Name: claim.Spec.Services[0].Name}
}

// deleteClaim deletes a claim unless it is another by now.
func (w *Writer) deleteClaim(ctx context.Context, claim *v1alpha1.AddressClaim) error {
	client := w.clients.byGV[v1alpha1.GroupVersion]
	var live v1alpha1.AddressClaim
	err := client.Get().Resource("addressclaims").Name(claim.Name).Do(ctx).Into(&live)
	if apierrors.IsNotFound(err) {
		w.wrote(claim.Name, nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read AddressClaim %s: %w", claim.Name, err)
	}
	if !sameClaim(&live, claim) {
		return nil // the next Snapshot will show it
	}
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &live.UID, ResourceVersion: &live.ResourceVersion}}
	err = client.Delete().Resource("addressclaims").Name(claim.Name).Body(options).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete AddressClaim %s: %w", claim.Name, err)
	}
	w.wrote(claim.Name, nil)
	return nil
}

// WriteReport creates or changes a Report; one that says the same as the last is not written again. A Writer writes
// one Report, that of its own component.
func (w *Writer) WriteReport(ctx context.Context, r v1alpha1.Report) error {
	w.mu.Lock()
	last := w.report
	w.mu.Unlock()
	r.TypeMeta, r.ObjectMeta = metav1.TypeMeta{}, metav1.ObjectMeta{Name: r.Component + "-" + r.Node}
	if last != nil && reflect.DeepEqual(*last, r) {
		return nil
	}
	client := w.clients.byGV[v1alpha1.GroupVersion]
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var live v1alpha1.Report
		err := client.Get().Resource("reports").Name(r.Name).Do(ctx).Into(&live)
		if apierrors.IsNotFound(err) {
			return client.Post().Resource("reports").Body(r.DeepCopy()).Do(ctx).Error()
		}
		if err != nil {
			return err
		}
		next := r.DeepCopy()
		next.TypeMeta, next.ObjectMeta = live.TypeMeta, live.ObjectMeta
		if reflect.DeepEqual(*next, live) {
			return nil
		}
		return client.Put().Resource("reports").Name(r.Name).Body(next).Do(ctx).Error()
	})
	if err != nil {
		return fmt.Errorf("write Report %s: %w", r.Name, err)
	}
	w.mu.Lock()
	w.report = r.DeepCopy()
	w.mu.Unlock()
	return nil
}

// object is a kind that has a status subresource.
type object interface {
	metav1.Object
	runtime.Object
}
