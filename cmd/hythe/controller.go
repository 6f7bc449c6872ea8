package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/kube/seen"
	"hythe.dev/hythe/internal/kube/writer"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/lb"
)

// defaultGatewayService is the Service of the gateways in the chart, the lab and the examples.
var defaultGatewayService = model.Key{Namespace: "hythe-system", Name: "gateway"}

func newControllerCommand() *cobra.Command {
	c := controller{}
	service := defaultGatewayService.String()
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Give addresses to LoadBalancer Services; write claims and status",
		Long: `The controller gives addresses of AddressPools to LoadBalancer Services of class ` + v1alpha1.LoadBalancerClass + `,
records each in an AddressClaim, and writes the status of Services and Ingresses. One controller at a
time does so: the holder of a Lease, or of a lock in the state folder. It needs no privileges and reads
no Secrets.`,
		Example: "  hythe controller --manifests manifests/ --state state/",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.settings.GatewayService, err = parseKey(service); err != nil {
				return err
			}
			if err := c.start("controller"); err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	c.addFlags(cmd, "127.0.0.1:9901")
	cmd.Flags().StringVar(&service, "gateway-service", service, "NAMESPACE/NAME of the gateways' Service, whose addresses Ingresses get")
	cmd.Flags().StringVar(&c.namespace, "namespace", defaultGatewayService.Namespace, "namespace of the Lease that controllers compete for")
	cmd.Flags().BoolVar(&c.settings.WithoutClass, "without-class", false, "serve LoadBalancer Services without spec.loadBalancerClass too")
	cmd.AddCommand(newReleaseCommand())
	return cmd
}

// A controller turns snapshots into claims and status.
type controller struct {
	process
	settings  lb.Settings
	namespace string

	newest atomic.Pointer[model.Snapshot]
	latest atomic.Pointer[lb.State]
	issues atomic.Pointer[[]model.Problem]
	// written are the claims of the last write: a snapshot may be older than that.
	written []*v1alpha1.AddressClaim
	// seen are the times of the last write, and lost says that some were lost before. broken is a file not kept aside yet.
	seen   seen.Times
	seenIn *model.Snapshot // the snapshot that seen is of, nil before the first
	lost   []model.Problem
	broken bool
	// owners are the nodes that announced each address at the last write, nil before the first.
	owners map[netip.Addr]string
}

func (c *controller) run(ctx context.Context) error {
	snapshots := run.NewLatest[*model.Snapshot]()
	work := func(ctx context.Context) error { return c.work(ctx, snapshots, c.set) }
	if c.server == nil {
		lock, err := lockFile(filepath.Join(c.state, ".controller.lock"))
		if err != nil {
			return err
		}
		defer lock.Close()
		c.readSeen()
	} else {
		c.settings.Shared, c.keepReports = true, true
		var err error
		if work, err = c.lead(snapshots); err != nil {
			return err
		}
	}
	claims := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hythe_controller_claims", Help: "AddressClaims that exist.",
	}, func() float64 { return float64(len(c.last().Claims)) })
	problems := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hythe_controller_problems", Help: "Problems of pools, claims and LoadBalancer Services.",
	}, func() float64 { return float64(len(c.problems())) })
	c.registry.MustRegister(claims, problems)
	admin := run.Admin{
		Gatherer: c.registry,
		Ready: func() error {
			switch {
			case c.newest.Load() == nil:
				return errors.New("there is no complete state of the cluster yet")
			case c.server == nil && c.latest.Load() == nil: // else another may be the leader
				return errors.New("claims are not written yet")
			}
			return nil
		},
		Debug: map[string]func(io.Writer){
			"claims":   func(w io.Writer) { fmt.Fprint(w, c.last().String()) },
			"problems": func(w io.Writer) { writeProblems(w, c.withConnection(c.problems())) },
			"panics":   c.panics.WriteText,
		},
		Inspect: c.inspectors("controller", "", map[string]run.Inspector{"problems": answerProblems(func() []model.Problem { return c.withConnection(c.problems()) })}),
	}
	return runAll(ctx,
		func(ctx context.Context) error {
			return c.watch(ctx, kube.ControllerKinds(), func(s *model.Snapshot) {
				c.newest.Store(s)
				snapshots.Put(s)
			})
		},
		func(ctx context.Context) error { return c.serve(ctx, admin) },
		work,
	)
}

// work calls set with each new snapshot.
func (c *controller) work(ctx context.Context, snapshots *run.Latest[*model.Snapshot], set func(context.Context, *model.Snapshot) error) error {
	log := problemLog{log: c.log}
	said := ""
	return run.Sink(ctx, snapshots, c.panics, "lb", func(ctx context.Context, s *model.Snapshot) error {
		err := contain.Call(func() error { return set(ctx, s) })
		switch {
		case err == nil:
			said = ""
		case ctx.Err() == nil && said != err.Error(): // it is tried each second
			said = err.Error()
			c.log.Error("claims and status are not all written", "error", err)
		}
		log.set(c.problems())
		return err
	})
}

// lead returns the work against an API server, which only the holder of the Lease does.
func (c *controller) lead(snapshots *run.Latest[*model.Snapshot]) (func(context.Context) error, error) {
	w, err := writer.New(c.server, c.log)
	if err != nil {
		return nil, err
	}
	set := func(ctx context.Context, s *model.Snapshot) error { return c.setAPI(ctx, w, s) }
	return c.leadWith(w, func(ctx context.Context) error {
		if s := c.newest.Load(); s != nil {
			snapshots.Put(s) // one that came in an earlier time as the leader counts again
		}
		return c.work(ctx, snapshots, set)
	})
}

// leadWith returns a task that does work whenever this process holds the Lease.
func (c *controller) leadWith(w *writer.Writer, work func(context.Context) error) (func(context.Context) error, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name this controller: %w", err)
	}
	identity := hostname + "_" + rand.Text()
	return func(ctx context.Context) error { return w.Lead(ctx, c.server, c.namespace, identity, work) }, nil
}

func (c *controller) last() lb.State {
	if s := c.latest.Load(); s != nil {
		return *s
	}
	return lb.State{}
}

// problems are those of the newest Snapshot, also while another controller leads, and what the last Build and write found.
func (c *controller) problems() []model.Problem {
	all := slices.Clone(c.lost)
	if s := c.newest.Load(); s != nil {
		all = append(all, s.Problems...)
	}
	if p := c.issues.Load(); p != nil {
		all = append(all, *p...)
	}
	return model.SortProblems(all)
}

// setAPI writes what the snapshot asks for to the API server.
func (c *controller) setAPI(ctx context.Context, w *writer.Writer, s *model.Snapshot) error {
	s = w.Current(s)
	state, problems := lb.Build(s, c.settings)
	c.panics.Problems("lb", problems)
	d := writer.Desired{
		Claims: state.Claims, Problems: slices.Clone(problems), Services: map[model.Key][]corev1.LoadBalancerIngress{},
		Ingresses: map[model.Key][]networkingv1.IngressLoadBalancerIngress{}, Pools: map[string]v1alpha1.AddressPoolStatus{},
		GatewayService: c.settings.GatewayService, Finalizers: map[model.Key]bool{}, Release: c.settings.Release,
	}
	for _, o := range state.Services {
		d.Services[o.Service], d.Finalizers[o.Service] = o.Ingress, o.Finalizer
		if o.Yielded {
			d.Yielded = append(d.Yielded, o.Service)
		}
	}
	for _, o := range state.Ingresses {
		d.Ingresses[o.Ingress] = o.Addresses
	}
	for _, o := range state.Pools {
		d.Pools[o.Pool] = o.Status
	}
	d.Networks = networks(s)
	d.News, c.owners = lb.Moves(s, c.owners)
	for _, r := range s.Reports { // nobody else tells what gateways and nodes found
		for _, p := range r.Problems {
			ref := model.ObjectRef{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}
			d.Problems = append(d.Problems, model.Problem{Object: ref, Reason: p.Reason, Message: p.Message})
		}
	}
	d.Problems = model.SortProblems(d.Problems)
	more, err := w.Set(ctx, s, d)
	problems = slices.Concat(problems, more)
	c.issues.Store(&problems)
	c.latest.Store(&state)
	return err
}

// networks are the nodes whose network is in place and that are not said to have one. A Report of an earlier boot of the node
// says nothing of this one: nothing is in the kernel before the agent is up.
func networks(s *model.Snapshot) []string {
	var out []string
	for _, r := range s.Reports {
		if n := s.Nodes[r.Node]; r.Component == "node" && r.Network && n != nil && n.NetworkUnavailable != corev1.ConditionFalse && ofThisBoot(r, n) {
			out = append(out, r.Node)
		}
	}
	slices.Sort(out)
	return out
}

// ofThisBoot is true where it is not known: a Report or a Node may name no boot.
func ofThisBoot(r *v1alpha1.Report, n *model.Node) bool {
	return r.BootID == "" || n.BootID == "" || r.BootID == n.BootID
}

// claimsFile is the file of the state folder that holds the claims.
const claimsFile = "claims.yaml"

// set writes what the snapshot asks for to the state folder. What cannot be written is a Problem too.
func (c *controller) set(_ context.Context, s *model.Snapshot) error {
	state, problems := lb.Build(withClaims(s, c.written), c.settings)
	c.panics.Problems("lb", problems)
	err := c.setFiles(s, state)
	if failed, ok := errors.AsType[notWritten](err); ok {
		problems = append(problems, failed.problem())
	}
	c.issues.Store(&problems)
	return err
}

// setFiles writes claims first: nothing else may speak of an address before that.
func (c *controller) setFiles(s *model.Snapshot, state lb.State) error {
	wrote, err := writeState(filepath.Join(c.state, claimsFile), state.Claims)
	if err != nil {
		return err
	}
	if wrote {
		c.log.Info("claims written", "claims", len(state.Claims))
	}
	c.written = state.Claims
	c.latest.Store(&state)
	if _, err = writeState(filepath.Join(c.state, kube.StatusFile), statusObjects(state)); err != nil {
		return err
	}
	return c.noteSeen(s, time.Now())
}

// withClaims adds what this controller wrote already to a snapshot that may be older.
func withClaims(s *model.Snapshot, written []*v1alpha1.AddressClaim) *model.Snapshot {
	if written == nil {
		return s
	}
	out := *s
	out.Claims = make(map[string]*v1alpha1.AddressClaim, len(written))
	for _, claim := range written {
		out.Claims[claim.Name] = claim
	}
	return &out
}

// statusObjects are the objects that a status subresource would be written to.
func statusObjects(state lb.State) []metav1.Object {
	var out []metav1.Object
	for _, p := range state.Pools {
		pool := &v1alpha1.AddressPool{Status: p.Status}
		pool.APIVersion, pool.Kind, pool.Name = v1alpha1.APIVersion, "AddressPool", p.Pool
		out = append(out, pool)
	}
	for _, s := range state.Services {
		service := &corev1.Service{Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: s.Ingress}}}
		service.APIVersion, service.Kind = "v1", "Service"
		service.Namespace, service.Name = s.Service.Namespace, s.Service.Name
		out = append(out, service)
	}
	for _, i := range state.Ingresses {
		ingress := &networkingv1.Ingress{}
		ingress.APIVersion, ingress.Kind = networkingv1.SchemeGroupVersion.String(), "Ingress"
		ingress.Namespace, ingress.Name = i.Ingress.Namespace, i.Ingress.Name
		ingress.Status.LoadBalancer.Ingress = i.Addresses
		out = append(out, ingress)
	}
	return out
}
