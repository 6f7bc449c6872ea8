package writer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
)

// Desired is what the elected controller wants to stand in the API.
type Desired struct {
	// Claims are all AddressClaims that should exist.
	Claims []*v1alpha1.AddressClaim
	// Services is status.loadBalancer.ingress of Hythe's Services; an empty list clears it.
	Services map[model.Key][]corev1.LoadBalancerIngress
	// Finalizers says which of Services carry v1alpha1.CleanupFinalizer. It is written with the status: who sees an
	// address sees the finalizer.
	Finalizers map[model.Key]bool
	// Yielded are the Services that another controller serves from now on, and that carry the finalizer only if it was not
	// Hythe who set it: the other may know nothing of finalizers, and the Service would wait for ever when it is deleted.
	Yielded []model.Key
	// Ingresses is status.loadBalancer.ingress of the Ingresses that gateways serve. From all others the addresses of
	// GatewayService are taken away, and nothing else: further controllers may publish addresses of Hythe's.
	Ingresses map[model.Key][]networkingv1.IngressLoadBalancerIngress
	// GatewayService is the Service of the gateways, whose addresses Ingresses get.
	GatewayService model.Key
	// Networks are the nodes whose condition NetworkUnavailable should be False, since their network is in place.
	Networks []string
	// Release says that Hythe leaves the cluster: all Reports are deleted, and neither Events nor conditions written.
	Release bool
	// Pools is the status of AddressPools.
	Pools map[string]v1alpha1.AddressPoolStatus
	// Problems become Events.
	Problems []model.Problem
	// News become Events too, of type Normal: what went well and a person should know.
	News []model.Problem
}

// ReasonClaimedByAnother is the reason of the Problem that an address was claimed by somebody else.
const ReasonClaimedByAnother = "ClaimedByAnother"

const (
	// goneFor is how long a node must be gone before its Reports are deleted.
	goneFor = 5 * time.Minute
	// reportAgain is how often a Report that did not change is looked for. The leader bears it for longer that Reports are
	// deleted, by mistake: see deletedReports of package kube.
	reportAgain = 20 * time.Second
)

// unseenFor is how long a Writer believes its own write more than a Snapshot that does not show it.
const unseenFor = 10 * time.Second

// A Writer writes to the API server what Hythe has to say. Set is for the elected controller alone; WriteReport is
// for every gateway and node.
type Writer struct {
	clients *client.Clients
	log     *slog.Logger
	events  events

	mu       sync.Mutex
	unseen   map[string]unseenClaim // by name
	report   *v1alpha1.Report       // as last written
	reported time.Time              // when it was last seen to be so
	gone     map[string]time.Time   // since when the node of a Report is gone, by name of the Report
}

// An unseenClaim was written, and no Snapshot has shown it yet.
type unseenClaim struct {
	claim *v1alpha1.AddressClaim // nil: deleted
	at    time.Time
}

// New makes a Writer. Nothing is written before Set or WriteReport.
func New(config *rest.Config, log *slog.Logger) (*Writer, error) {
	c, err := client.Connect(config, 0)
	if err != nil {
		return nil, err
	}
	return &Writer{clients: c, log: log, unseen: map[string]unseenClaim{}, gone: map[string]time.Time{}, events: newEvents(c)}, nil
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
// names their address; then Reports of nodes that are gone for long. It goes on after an error, or a panic, which cost one
// object, and returns all of them.
func (w *Writer) Set(ctx context.Context, s *model.Snapshot, d Desired) ([]model.Problem, error) {
	var problems []model.Problem
	var errs []error
	news := slices.Clone(d.News)
	lost := map[string]bool{}    // addresses that somebody else got
	late := map[model.Key]bool{} // Services of which something could not be written
	for _, claim := range d.Claims {
		var problem *model.Problem
		err := contain.Call(func() (err error) {
			problem, err = w.setClaim(ctx, s.Claims[claim.Name], claim)
			return err
		})
		if err != nil {
			errs = append(errs, err)
			for _, r := range claim.Spec.Services {
				late[model.Key{Namespace: r.Namespace, Name: r.Name}] = true
			}
		}
		switch {
		case problem != nil:
			problems = append(problems, *problem)
			lost[claim.Spec.Address] = true
		case err == nil && s.Claims[claim.Name] == nil:
			news = append(news, allocated(claim)...)
		}
	}
	w.setStatus(ctx, s, d, lost, late, &errs)
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
		if err := contain.Call(func() error { return w.deleteClaim(ctx, claim) }); err != nil {
			errs = append(errs, err)
		}
	}
	if err := w.deleteReports(ctx, s, d.Release); err != nil {
		errs = append(errs, err)
	}
	if d.Release { // who leaves has nothing more to tell, and no right to
		return model.SortProblems(problems), errors.Join(errs...)
	}
	errs = append(errs, w.setNetworks(ctx, d.Networks)...)
	if err := w.events.set(ctx, s, append(slices.Clone(d.Problems), problems...), news); err != nil {
		errs = append(errs, err)
	}
	return model.SortProblems(problems), errors.Join(errs...)
}

// setClaim creates a claim, or changes it if it is as the Snapshot has it.
func (w *Writer) setClaim(ctx context.Context, old, claim *v1alpha1.AddressClaim) (*model.Problem, error) {
	if old != nil && sameClaim(old, claim) {
		return nil, nil
	}
	api := w.clients.ByGV[v1alpha1.GroupVersion]
	if old == nil {
		fresh := &v1alpha1.AddressClaim{Spec: claim.Spec}
		fresh.Name = claim.Name
		err := api.Post().Resource("addressclaims").Body(fresh).Do(ctx).Error()
		if err == nil {
			w.wrote(claim.Name, claim)
			return nil, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("create AddressClaim %s: %w", claim.Name, err)
		}
	}
	var live v1alpha1.AddressClaim
	err := api.Get().Resource("addressclaims").Name(claim.Name).Do(ctx).Into(&live)
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
	if err := api.Put().Resource("addressclaims").Name(live.Name).Body(&live).Do(ctx).Error(); err != nil {
		return nil, fmt.Errorf("update AddressClaim %s: %w", claim.Name, err)
	}
	w.wrote(claim.Name, claim)
	return nil, nil
}

// allocated is the news of a claim that was made.
func allocated(claim *v1alpha1.AddressClaim) (news []model.Problem) {
	for _, r := range claim.Spec.Services {
		key := model.Key{Namespace: r.Namespace, Name: r.Name}
		news = append(news, model.Problemf(model.Ref("Service", key), "AddressAllocated", "%s of AddressPool %s", claim.Spec.Address, claim.Spec.Pool))
	}
	return news
}

func firstService(claim *v1alpha1.AddressClaim) model.Key {
	if len(claim.Spec.Services) == 0 {
		return model.Key{}
	}
	return model.Key{Namespace: claim.Spec.Services[0].Namespace, Name: claim.Spec.Services[0].Name}
}

// deleteClaim deletes a claim unless it is another by now.
func (w *Writer) deleteClaim(ctx context.Context, claim *v1alpha1.AddressClaim) error {
	api := w.clients.ByGV[v1alpha1.GroupVersion]
	var live v1alpha1.AddressClaim
	err := api.Get().Resource("addressclaims").Name(claim.Name).Do(ctx).Into(&live)
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
	err = api.Delete().Resource("addressclaims").Name(claim.Name).Body(options).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete AddressClaim %s: %w", claim.Name, err)
	}
	w.wrote(claim.Name, nil)
	return nil
}

// deleteReports deletes the Reports of nodes that are gone for goneFor, or all.
func (w *Writer) deleteReports(ctx context.Context, s *model.Snapshot, all bool) error {
	if len(s.Nodes) == 0 && !all {
		return nil // a cluster without nodes is one whose nodes were not read
	}
	var errs []error
	for name := range w.gone {
		if s.Reports[name] == nil {
			delete(w.gone, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Reports)) {
		if !all && !w.goneForLong(name, s.Reports[name].Node, s) {
			continue
		}
		err := w.clients.ByGV[v1alpha1.GroupVersion].Delete().Resource("reports").Name(name).Do(ctx).Error()
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete Report %s of a node that is gone: %w", name, err))
			continue
		}
		w.log.Info("Report deleted", "report", name)
		delete(w.gone, name)
	}
	return errors.Join(errs...)
}

// goneForLong says whether the node of a Report is gone for goneFor, and remembers since when.
func (w *Writer) goneForLong(name, node string, s *model.Snapshot) bool {
	if node == "" || s.Nodes[node] != nil {
		delete(w.gone, name)
		return false
	}
	since, ok := w.gone[name]
	if !ok {
		w.gone[name] = time.Now()
	}
	return ok && time.Since(since) >= goneFor
}

// WriteReport creates or changes a Report; one that says the same as the last is not written again, but looked for each
// reportAgain: the leader deletes those of nodes that it does not see. A Writer writes one Report, that of its own
// component.
func (w *Writer) WriteReport(ctx context.Context, r v1alpha1.Report) error {
	w.mu.Lock()
	last, seen := w.report, w.reported
	w.mu.Unlock()
	r.TypeMeta, r.ObjectMeta = metav1.TypeMeta{}, metav1.ObjectMeta{Name: r.Component + "-" + r.Node}
	if last != nil && reflect.DeepEqual(*last, r) && time.Since(seen) < reportAgain {
		return nil
	}
	api := w.clients.ByGV[v1alpha1.GroupVersion]
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var live v1alpha1.Report
		err := api.Get().Resource("reports").Name(r.Name).Do(ctx).Into(&live)
		if apierrors.IsNotFound(err) {
			return api.Post().Resource("reports").Body(r.DeepCopy()).Do(ctx).Error()
		}
		if err != nil {
			return err
		}
		next := r.DeepCopy()
		next.TypeMeta, next.ObjectMeta = live.TypeMeta, live.ObjectMeta
		if reflect.DeepEqual(*next, live) {
			return nil
		}
		return api.Put().Resource("reports").Name(r.Name).Body(next).Do(ctx).Error()
	})
	if err != nil {
		return fmt.Errorf("write Report %s: %w", r.Name, err)
	}
	w.mu.Lock()
	w.report, w.reported = r.DeepCopy(), time.Now()
	w.mu.Unlock()
	return nil
}

// object is a kind that has a status subresource.
type object interface {
	metav1.Object
	runtime.Object
}
