package writer

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
)

// setStatus writes the status of Services, Ingresses and pools where the Snapshot has another one. Addresses in lost
// are left out. What names the addresses of a Service in late, whose claim could not be written, stays as it is: clients
// use it, and the next attempt is near. It adds the Services to late whose addresses may stand in a status that could not
// be written.
func (w *Writer) setStatus(ctx context.Context, s *model.Snapshot, d Desired, lost map[string]bool, late map[model.Key]bool, errs *[]error) {
	unclaimed := late[d.GatewayService]
	w.setServices(ctx, s, d, lost, late, errs)
	for _, key := range s.Ingresses.SortedKeys() {
		ingress := s.Ingresses.Get(key)
		if _, served := d.Ingresses[key]; served && unclaimed {
			continue
		}
		want := wantedIngress(s, d, key, ingress.Status.LoadBalancer.Ingress, lost)
		if sameList(ingress.Status.LoadBalancer.Ingress, want) {
			continue
		}
		err := updateStatus(ctx, w, "Ingress", key, &networkingv1.Ingress{}, func(live *networkingv1.Ingress) bool {
			want := wantedIngress(s, d, key, live.Status.LoadBalancer.Ingress, lost)
			if live.UID != ingress.UID || sameList(live.Status.LoadBalancer.Ingress, want) {
				return false
			}
			live.Status.LoadBalancer.Ingress = want
			return true
		})
		if err != nil {
			*errs = append(*errs, err)
			late[d.GatewayService] = true
		}
	}
	for name, want := range d.Pools {
		pool := s.Pools[name]
		if pool == nil || pool.Status == want {
			continue
		}
		err := updateStatus(ctx, w, "AddressPool", model.Key{Name: name}, &v1alpha1.AddressPool{}, func(live *v1alpha1.AddressPool) bool {
			changed := live.Status != want
			live.Status = want
			return changed
		})
		if err != nil {
			*errs = append(*errs, err)
		}
	}
}

// setServices writes status and finalizer of Services that are not in late, and adds those that could not be written.
func (w *Writer) setServices(ctx context.Context, s *model.Snapshot, d Desired, lost map[string]bool, late map[model.Key]bool, errs *[]error) {
	for _, key := range model.SortedKeys(d.Services) {
		want := slices.DeleteFunc(slices.Clone(d.Services[key]), func(i corev1.LoadBalancerIngress) bool { return lost[i.IP] })
		service := s.Services.Get(key)
		if service == nil || late[key] {
			continue
		}
		finalizer, yielded := d.Finalizers[key], slices.Contains(d.Yielded, key)
		if len(want) == 0 && len(d.Services[key]) > 0 && !hasFinalizer(service) {
			finalizer = false // it goes with a claim, and there is none yet
		}
		if sameList(service.Status.LoadBalancer.Ingress, want) && hasFinalizer(service) == finalizer && !yielded {
			continue
		}
		err := updateStatus(ctx, w, "Service", key, &corev1.Service{}, func(live *corev1.Service) bool {
			if live.UID != service.UID {
				return false
			}
			changed := setFinalizer(live, finalizer && (!yielded || !ownFinalizer(live)))
			if !sameList(live.Status.LoadBalancer.Ingress, want) {
				live.Status.LoadBalancer.Ingress, changed = want, true
			}
			return changed
		})
		if err != nil {
			*errs = append(*errs, err)
			late[key] = true
		}
	}
}

// wantedIngress is what should stand in the status of an Ingress: what gateways serve it on or, where none does,
// what is there without the addresses of gateways.
func wantedIngress(s *model.Snapshot, d Desired, key model.Key, now []networkingv1.IngressLoadBalancerIngress, lost map[string]bool) []networkingv1.IngressLoadBalancerIngress {
	if want, ok := d.Ingresses[key]; ok {
		return slices.DeleteFunc(slices.Clone(want), func(i networkingv1.IngressLoadBalancerIngress) bool { return lost[i.IP] })
	}
	own := map[string]bool{}
	gateway := v1alpha1.ServiceRef{Namespace: d.GatewayService.Namespace, Name: d.GatewayService.Name}
	for _, claim := range s.Claims {
		own[claim.Spec.Address] = slices.Contains(claim.Spec.Services, gateway)
	}
	return slices.DeleteFunc(slices.Clone(now), func(i networkingv1.IngressLoadBalancerIngress) bool { return own[i.IP] })
}

func hasFinalizer(service *corev1.Service) bool {
	return slices.Contains(service.Finalizers, v1alpha1.CleanupFinalizer)
}

// ownFinalizer says whether it was Hythe who set the finalizer, by what the API server notes of each writer (API concepts,
// "Server-Side Apply", managedFields).
func ownFinalizer(service *corev1.Service) bool {
	return slices.ContainsFunc(service.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == client.FieldManager && m.FieldsV1 != nil && strings.Contains(m.FieldsV1.GetRawString(), `"v:\"`+v1alpha1.CleanupFinalizer+`\"`)
	})
}

// setFinalizer adds the finalizer, or takes it away, and reports whether that changed anything. None can be added to an
// object that is being deleted.
func setFinalizer(service *corev1.Service, want bool) bool {
	if hasFinalizer(service) == want || want && service.DeletionTimestamp != nil {
		return false
	}
	if want {
		service.Finalizers = append(service.Finalizers, v1alpha1.CleanupFinalizer)
	} else {
		service.Finalizers = slices.DeleteFunc(service.Finalizers, func(f string) bool { return f == v1alpha1.CleanupFinalizer })
	}
	return true
}

func sameList[T any](a, b []T) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// updateStatus reads an object, lets edit change its status, and writes that if edit says so; again if somebody else
// wrote in the meantime. An object that is gone needs no status.
func updateStatus[T object](ctx context.Context, w *Writer, kind string, key model.Key, into T, edit func(T) bool) error {
	r, _ := client.ResourceOf(kind)
	api := w.clients.ByGV[r.GV]
	attempt := func() error {
		live := into.DeepCopyObject().(T)
		err := api.Get().NamespaceIfScoped(key.Namespace, !r.Clustered).Resource(r.Name).Name(key.Name).Do(ctx).Into(live)
		if err != nil {
			return err
		}
		if !edit(live) {
			return nil
		}
		return api.Put().NamespaceIfScoped(key.Namespace, !r.Clustered).Resource(r.Name).Name(key.Name).
			SubResource("status").Body(live).Do(ctx).Error()
	}
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error { return contain.Call(attempt) })
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of %s: %w", model.Ref(kind, key), err)
	}
	return nil
}
