package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/kube/writer"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/lb"
)

// errReleased ends the work of a release that is complete.
var errReleased = errors.New("everything is given back")

func newReleaseCommand() *cobra.Command {
	c := releasing()
	service := defaultGatewayService.String()
	deadline := time.Minute
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Give back what the controller wrote to the API: before Hythe is uninstalled",
		Long: `Services that Hythe serves carry the finalizer ` + v1alpha1.CleanupFinalizer + `, and
would wait for a controller for ever when they are deleted without one. This command takes the finalizers off, empties
the status of Services and Ingresses where Hythe's addresses stand, and deletes all AddressClaims and Reports. It waits
for the Lease, so that no controller writes it all again, and may be repeated.`,
		Example: "  hythe controller release && helm uninstall hythe",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.settings.GatewayService, err = parseKey(service); err != nil {
				return err
			}
			if err := c.start("controller"); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), deadline)
			defer cancel()
			return c.release(ctx, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "how to reach the API server (default: as the pod that this runs in)")
	f.StringArrayVar(&c.apiservers, "apiserver", nil, "URL of an API server, https://HOST:PORT; may be repeated")
	f.StringVar(&service, "gateway-service", service, "the controller's --gateway-service")
	f.StringVar(&c.namespace, "namespace", defaultGatewayService.Namespace, "the controller's --namespace")
	f.BoolVar(&c.settings.WithoutClass, "without-class", false, "the controller's --without-class")
	f.DurationVar(&deadline, "deadline", deadline, "wait no longer")
	return cmd
}

// releasing is a controller that gives back. It does so as well where the CustomResourceDefinitions went first: Services
// would keep their finalizers.
func releasing() controller {
	return controller{process: process{bare: true}, settings: lb.Settings{Release: true, Shared: true}}
}

// release does the controller's work with nothing to serve, until nothing is left.
func (c *controller) release(ctx context.Context, out io.Writer) error {
	w, err := writer.New(c.server, c.log)
	if err != nil {
		return err
	}
	snapshots := run.NewLatest[*model.Snapshot]()
	var last error
	said := ""
	work := func(ctx context.Context) error {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-snapshots.Ready():
			case <-time.After(run.Retry): // again what failed
			}
			s, ok := snapshots.Take()
			if !ok {
				s = c.newest.Load()
			}
			if s == nil {
				continue
			}
			if last = c.setAPI(ctx, w, s); last == nil && c.released(s) {
				return errReleased
			}
			if last != nil && said != last.Error() && ctx.Err() == nil {
				said = last.Error()
				c.log.Warn("not all is given back yet, it is tried again", "error", last)
			}
		}
		return nil
	}
	lead, err := c.leadWith(w, work)
	if err != nil {
		return err
	}
	err = runAll(ctx, lead, func(ctx context.Context) error {
		return c.watch(ctx, kube.ControllerKinds(), func(s *model.Snapshot) {
			c.newest.Store(s)
			snapshots.Put(s)
		})
	})
	switch {
	case errors.Is(err, errReleased):
		fmt.Fprintln(out, "released: finalizers, addresses in status, claims, reports")
		return nil
	case err == nil:
		return fmt.Errorf("give everything back: not done in time: %w", errors.Join(ctx.Err(), last))
	}
	return err
}

// released says whether nothing of Hythe's is left in a Snapshot.
func (c *controller) released(s *model.Snapshot) bool {
	state, _ := lb.Build(s, c.settings)
	return len(s.Claims) == 0 && len(s.Reports) == 0 && !slices.ContainsFunc(state.Services, func(o lb.ServiceStatus) bool {
		svc := s.Services.Get(o.Service)
		return len(svc.Status.LoadBalancer.Ingress) != len(o.Ingress) || len(svc.Finalizers) > 0 != o.Finalizer
	})
}
