package writer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// LeaseName is the Lease that controllers compete for.
const LeaseName = "hythe-controller"

const (
	leaseDuration = 15 * time.Second
	leaseRenew    = 10 * time.Second
	leaseRetry    = 2 * time.Second
	leaseTimeout  = 3 * time.Second // of one request
)

// A guardedLock ends the work when the Lease was not renewed for leaseRenew. The elector notices that too, but then
// tries to give the Lease back before it says so, and another may lead by that time. It ends the work at once where
// another holds the Lease: somebody deleted it, or this process was stopped for long.
type guardedLock struct {
	resourcelock.Interface
	guard *time.Timer
	held  *atomic.Bool // by this process, at some time
	other *atomic.Bool // another holds it, as read last

	log  *slog.Logger
	said *atomic.Pointer[string] // why the Lease could not be had the last time, nil if it could
}

func newGuardedLock(lock resourcelock.Interface, guard *time.Timer, log *slog.Logger) guardedLock {
	return guardedLock{Interface: lock, guard: guard, held: &atomic.Bool{}, other: &atomic.Bool{}, log: log, said: &atomic.Pointer[string]{}}
}

// tell logs an error once while it lasts: the elector tries again for ever, and what it says goes nowhere. That others are
// first is none.
func (l guardedLock) tell(ctx context.Context, err error) {
	switch {
	case err == nil:
		l.said.Store(nil)
		return
	case ctx.Err() != nil, apierrors.IsNotFound(err), apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return
	}
	text := err.Error()
	if old := l.said.Swap(&text); old == nil || *old != text {
		l.log.Warn("this controller cannot compete for the Lease, it is tried again", "lease", l.Describe(), "error", err)
	}
}

// Get implements resourcelock.Interface.
func (l guardedLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err != nil {
		l.tell(ctx, err) // that it can be read says not that it can be written
	} else {
		other := record.HolderIdentity != "" && record.HolderIdentity != l.Identity()
		l.other.Store(other)
		if other && l.held.Load() {
			l.guard.Reset(0)
		}
	}
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l guardedLock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	start := time.Now()
	return l.guarded(ctx, l.Interface.Create(ctx, r), start)
}

// Update implements resourcelock.Interface. An elector that ends gives back the Lease that it believes to hold: not if it
// is another's, which would lose it.
func (l guardedLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if r.HolderIdentity == "" && l.other.Load() {
		return errors.New("give Lease back: another holds it")
	}
	start := time.Now()
	return l.guarded(ctx, l.Interface.Update(ctx, r), start)
}

func (l guardedLock) guarded(ctx context.Context, err error, start time.Time) error {
	l.tell(ctx, err)
	if err == nil {
		l.held.Store(true)
		l.guard.Reset(leaseRenew - time.Since(start))
	}
	return err
}

// Lead calls work whenever this process is the leader, with a context that ends when it is no more, until ctx is
// done. It waits for work to return before the Lease is given back or competed for again. identity must differ
// between processes.
func (w *Writer) Lead(ctx context.Context, config *rest.Config, namespace, identity string, work func(context.Context) error) error {
	config = rest.CopyConfig(config)
	config.UserAgent = "hythe"
	config.Timeout = leaseTimeout
	client, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make Lease client: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: LeaseName}, Client: client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
	}
	for ctx.Err() == nil {
		if err := w.leadOnce(ctx, lock, work); err != nil {
			return err
		}
	}
	return nil
}

// leadOnce competes for the Lease and returns when it was held and lost, or when ctx is done.
func (w *Writer) leadOnce(ctx context.Context, lock resourcelock.Interface, work func(context.Context) error) error {
	// The elector gives the Lease back when its context ends, so that context outlives the work.
	electorCtx, stop := context.WithCancel(klog.NewContext(context.WithoutCancel(ctx), logr.Discard()))
	defer stop()
	workCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	guard := time.AfterFunc(leaseRenew, cancel)
	guard.Stop() // until the Lease is held
	defer guard.Stop()
	done := make(chan error, 1)
	leading := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: newGuardedLock(lock, guard, w.log), LeaseDuration: leaseDuration, RenewDeadline: leaseRenew, RetryPeriod: leaseRetry, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(lost context.Context) {
				close(leading)
				defer context.AfterFunc(lost, cancel)()
				w.log.Info("this controller leads", "identity", lock.Identity())
				done <- work(workCtx)
				stop()
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				if identity != lock.Identity() {
					w.log.Info("another controller leads", "identity", identity)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("compete for Lease %s: %w", LeaseName, err)
	}
	defer context.AfterFunc(ctx, func() {
		select {
		case <-leading: // work ends, then stop is called
		default:
			stop()
		}
	})()
	elector.Run(electorCtx)
	select {
	case <-leading:
		err := <-done
		if ctx.Err() == nil {
			w.log.Warn("this controller leads no more", "identity", lock.Identity())
		}
		return err
	default:
		return nil
	}
}
