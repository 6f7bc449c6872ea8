package kube

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/client"
	"hythe.dev/hythe/internal/model"
)

// APIOptions say what is watched and what is kept on the node. Durations that are zero get a default.
type APIOptions struct {
	// Kinds is what is watched: ControllerKinds, GatewayKinds or NodeKinds. The rest of a Snapshot stays empty.
	Kinds []string
	// OpaqueSecrets takes Secrets of any type that hold tls.crt and tls.key, and Opaque ones that hold auth, not only
	// those of type kubernetes.io/tls. All Secrets of the cluster then pass through this process.
	OpaqueSecrets bool
	// Status keeps the status of objects; who does not need it gets no Snapshot for a change of it.
	Status bool
	// Bare takes a kind of Hythe's own that the API server does not serve for an empty one, and says so, in place of waiting
	// until its CustomResourceDefinition is installed: nodes must get their network before.
	Bare bool
	// KeepReports lets a Report that is deleted count for a while longer: who wrote it looks for it and writes it again. Who
	// takes all Reports away must not ask for it.
	KeepReports bool
	// Proxied leaves out the EndpointSlices that are labelled service.kubernetes.io/headless: no Service proxy sends anything
	// there, whatever their Service says (so does kube-proxy). An Ingress may.
	Proxied bool
	// Interval is the least time between two Snapshots (default 30 ms) when changes do not end. The first ones, up to burst, go
	// out at once.
	Interval time.Duration
	// Ping is how long the connection may be silent before it is tested, and how long the test may take (5 s).
	Ping time.Duration

	// CacheDir is where the last objects are kept for a start while the API server is away; empty: nowhere.
	CacheDir string
	// CacheInMemory says that CacheDir is memory-backed (tmpfs). Secrets are kept nowhere else.
	CacheInMemory bool
	// CacheAfter is how long a start waits for the API server before it takes the cache (5 s).
	CacheAfter time.Duration
	// CacheEvery is the least time between two writes of the cache (5 s).
	CacheEvery time.Duration

	// Seed is of the random times by which nodes differ; 0 for a random one.
	Seed uint64

	// Registerer gets metrics; nil for none.
	Registerer prometheus.Registerer
}

// silence is how long the API server may give no answer before that is logged.
const silence = 5 * time.Second

// burst is how many Snapshots go out without a rest between them: single changes are told of at once, and a change that takes a
// few writes, too, since what follows from each of them costs what it changes.
const burst = 8

// relistAfter is how long the API server must have been away for all to be read anew, in place of what changed since: long
// enough that its etcd may have been restored from a backup and gone on.
const relistAfter = 30 * time.Second

// API is the cluster's API server as a source of Snapshots.
//
//	list and watch ──> replica of each kind ──> world.apply(what changed) ──> *model.Snapshot ──> handler
//	                              └──> cache on the node, for a start without the API server
type API struct {
	options  APIOptions
	host     string
	log      *slog.Logger
	clients  *client.Clients
	replicas []*replica
	cache    *diskCache // nil without CacheDir
	wake     chan struct{}
	cachedAt atomic.Pointer[time.Time]                   // of the cache in use; nil when the API server's own state is
	said     atomic.Pointer[map[complaint]model.Problem] // what the API server does not give, and why
	unkept   atomic.Pointer[model.Problem]               // why the cache is not written
}

// NewAPI makes a source of what config's API server has. Nothing is asked before Run.
func NewAPI(config *rest.Config, options APIOptions, log *slog.Logger) (*API, error) {
	setDefault(&options.Interval, 30*time.Millisecond)
	setDefault(&options.CacheAfter, 5*time.Second)
	setDefault(&options.CacheEvery, 5*time.Second)
	for options.Seed == 0 {
		options.Seed = rand.Uint64() //nolint:gosec // spreads load
	}
	a := &API{options: options, host: config.Host, log: log, wake: make(chan struct{}, 1)}
	var err error
	if a.clients, err = client.Connect(config, options.Ping); err != nil {
		return nil, err
	}
	for _, kind := range options.Kinds {
		if err := a.watch(kind); err != nil {
			return nil, err
		}
	}
	if options.CacheDir != "" {
		if a.cache, err = newDiskCache(options, config.Host); err != nil {
			return nil, err
		}
	}
	if options.Registerer != nil {
		return a, a.register(options.Registerer)
	}
	return a, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// watch adds a replica of a kind.
func (a *API) watch(kind string) error {
	resource, ok := client.ResourceOf(kind)
	if !ok {
		return fmt.Errorf("watch %s: there is no such kind", kind)
	}
	selector := fields.Everything()
	if kind == "Secret" && !a.options.OpaqueSecrets {
		selector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS))
	}
	r := newReplica(kind, resource, selector, a.options.Status, a.options.Seed, a.notify)
	if kind == "EndpointSlice" && a.options.Proxied {
		r.labels = "!" + corev1.IsHeadlessService
	}
	r.bare = r.custom() && (a.options.Bare || kind == "GatewayConfig") // a gateway serves without it
	r.keeps = kind == "AddressClaim" || kind == "Report" && a.options.KeepReports
	a.replicas = append(a.replicas, r)
	return nil
}

func (a *API) notify() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *API) register(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hythe_snapshot_age_seconds", Help: "How long ago the API server last confirmed the state that is in use; 0 while it does.",
		}, func() float64 { return a.Age().Seconds() }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "hythe_api_lists_total", Help: "Complete lists received from the API server.",
		}, func() float64 { return a.sum(func(r *replica) int { return r.lists }) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "hythe_api_expired_total", Help: "Watches that the API server could not continue (410).",
		}, func() float64 { return a.sum(func(r *replica) int { return r.expired }) }),
	} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func (a *API) sum(count func(*replica) int) float64 {
	total := 0
	for _, r := range a.replicas {
		r.mu.Lock()
		total += count(r)
		r.mu.Unlock()
	}
	return float64(total)
}

// Age is how old the state in use is: zero while all watches run, else the time since the first of them was lost
// or, with a state from the cache, since that was true.
func (a *API) Age() time.Duration {
	if at := a.cachedAt.Load(); at != nil {
		return time.Since(*at)
	}
	if since := a.silentSince(); !since.IsZero() {
		return time.Since(since)
	}
	return 0
}

// FromCache says whether the state in use is not the API server's of now: one kept on the node, or the last one before
// the server went away.
func (a *API) FromCache() bool {
	if a.cachedAt.Load() != nil {
		return true
	}
	said := a.said.Load()
	if said == nil {
		return false
	}
	_, away := (*said)[complaint{reason: ReasonAPIServerAway}]
	return away
}

// silentSince is when the first of the replicas that get no state was lost, the zero time if all get theirs.
func (a *API) silentSince() (oldest time.Time) {
	for _, r := range a.replicas {
		if since, _ := r.silent(); !since.IsZero() && (oldest.IsZero() || since.Before(oldest)) {
			oldest = since
		}
	}
	return oldest
}

// problems says what is wrong with the connection and with what it brought. Each Snapshot has them.
func (a *API) problems(more ...model.Problem) []model.Problem {
	out := more
	if at := a.cachedAt.Load(); at != nil {
		out = append(out, a.cacheProblem(*at))
	} else {
		out = append(out, a.Problems()...)
	}
	if p := a.unkept.Load(); p != nil {
		out = append(out, *p)
	}
	for _, r := range a.replicas {
		out = append(out, r.problems(a.ref())...)
	}
	return model.SortProblems(out)
}

func (a *API) ref() model.ObjectRef { return model.ObjectRef{Kind: "APIServer", Name: a.host} }

func (a *API) cacheProblem(at time.Time) model.Problem {
	return model.Problemf(a.ref(), "SnapshotFromCache",
		"the API server has not given all state since the start%s: the state kept on this node at %s is used until it does",
		a.missing(), at.UTC().Format(time.RFC3339))
}

// Run watches the API server and calls handle with the first Snapshot when all kinds are complete, and then after
// each change, until ctx is done. While the API server is away the last Snapshot stays; at a start without it the
// cache is handed out, if there is one. handle must not block for long.
func (a *API) Run(ctx context.Context, handle func(*model.Snapshot)) error {
	logger := logr.Discard() // the loss of the API server is logged once, in watchdog
	if a.log.Enabled(ctx, slog.LevelDebug) {
		logger = logr.FromSlogHandler(a.log.Handler())
	}
	var group sync.WaitGroup
	defer group.Wait()
	for _, r := range a.replicas {
		group.Go(func() { r.reflect(klog.NewContext(ctx, logger), a.clients) })
	}
	saved := &shelf{}
	if a.cache != nil {
		group.Go(func() { a.save(ctx, saved) })
	}
	group.Go(func() { a.watchdog(ctx) })
	group.Go(func() { a.confirm(ctx) })
	a.loop(ctx, handle, saved)
	a.clients.HTTP.CloseIdleConnections()
	return nil
}

// loop hands out Snapshots.
func (a *API) loop(ctx context.Context, handle func(*model.Snapshot), saved *shelf) {
	w, d, history := newWorld(), newDisruption(), new(model.History)
	first, pace := true, rate.NewLimiter(rate.Every(a.options.Interval), burst)
	var said []model.Problem // with the last Snapshot
	var early, due <-chan time.Time
	if a.cache != nil {
		early = time.After(a.options.CacheAfter)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-early:
			if s := a.fromCache(d); first && s != nil {
				handle(s)
			}
			continue
		case <-a.wake:
		case <-due:
		}
		changes, ok := a.changes()
		if !ok {
			continue
		}
		if first {
			early = nil
			changes = append(changes, a.remember()...)
			a.recall(d, changes)
			a.cachedAt.Store(nil)
		}
		changes, due = a.doubt(d, changes)
		problems := a.problems(d.problems(a.ref())...)
		if len(changes) == 0 && !first && slices.Equal(problems, said) {
			continue
		}
		if first {
			a.log.Info("state received from the API server", "objects", len(changes))
		}
		next := withProblems(w.apply(changes), problems)
		handle(history.NoteServices(next, w.touched, changedServices(changes), first || !slices.Equal(problems, said) || slices.ContainsFunc(changes, ofOthers)))
		if a.cache != nil && (first || len(changes) > 0) {
			saved.put(changes)
		}
		first, said = false, problems
		if pace.Wait(ctx) != nil {
			return
		}
	}
}

// ofOthers says whether a change is of something else than Services and their endpoints.
func ofOthers(c change) bool { return c.kind != "EndpointSlice" && c.kind != "Service" }

// changedServices are the Services that are new, others or gone.
func changedServices(changes []change) []model.Key {
	var out []model.Key
	for _, c := range changes {
		if c.kind == "Service" {
			out = append(out, c.key)
		}
	}
	return out
}

func withProblems(s *model.Snapshot, more []model.Problem) *model.Snapshot {
	if len(more) == 0 {
		return s
	}
	out := *s
	out.Problems = model.SortProblems(slices.Concat(s.Problems, more))
	return &out
}

// changes returns what changed in all kinds, or false while one kind has no complete list yet.
func (a *API) changes() ([]change, bool) {
	for _, r := range a.replicas {
		r.mu.Lock()
		synced := r.synced
		r.mu.Unlock()
		if !synced {
			return nil, false
		}
	}
	var out []change
	for _, r := range a.replicas {
		out = append(out, r.drain()...)
	}
	return out, true
}

// confirm reads again what a list lacked, when it is time.
func (a *API) confirm(ctx context.Context) {
	tick := time.NewTicker(deletedFew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, r := range a.replicas {
			list, _, _ := r.source(a.clients)
			if err := r.confirm(ctx, list); err != nil && ctx.Err() == nil {
				a.log.Warn("what a list lacked stays in use", "error", err)
			}
			if err := r.believe(ctx, a.clients.ByGV[v1alpha1.GroupVersion]); err != nil && ctx.Err() == nil {
				a.log.Warn("what was deleted stays in use", "error", err)
			}
		}
	}
}

// doubt returns what is to be used of some changes, and what tells when to look again.
func (a *API) doubt(d *disruption, changes []change) ([]change, <-chan time.Time) {
	now := time.Now()
	late := slices.ContainsFunc(a.replicas, func(r *replica) bool { return r.kind == "Node" && r.late(now) })
	changes = d.apply(changes, now, late)
	if next := d.next(now); !next.IsZero() {
		return changes, time.After(next.Sub(now))
	}
	return changes, nil
}

// remember looks in the cache for kinds that the API server did not give at the start: it may have only just begun, a role is not of this
// version yet, or somebody deleted the definition of a kind. What was there before counts until it says something, as it does for those that
// run (see replica.bear).
func (a *API) remember() []change {
	if a.cache == nil {
		return nil
	}
	var out []change
	for _, r := range a.replicas {
		if !r.refused() {
			continue
		}
		objects, _, err := a.cache.loadKinds([]string{r.kind})
		if err != nil {
			continue // there is no state of before
		}
		r.seed(objects)
		out = append(out, r.drain()...)
	}
	return out
}

// recall looks in the cache for what was ready before most Nodes were Unknown, as a process that starts then finds them.
func (a *API) recall(d *disruption, changes []change) {
	if a.cache == nil || len(d.nodes) > 0 || !mostUnknown(changes) {
		return
	}
	if objects, at, err := a.cache.load(); err == nil && time.Since(at) < silentRecall {
		d.recall(still(objects, changes), time.Now())
	}
}

// still returns the objects that are among those of the API server too: what was deleted meanwhile is never heard of again.
func still(objects []metav1.Object, changes []change) []metav1.Object {
	there := map[string]map[model.Key]bool{}
	for _, c := range changes {
		if there[c.kind] == nil {
			there[c.kind] = map[model.Key]bool{}
		}
		there[c.kind][c.key] = c.object != nil
	}
	return slices.DeleteFunc(objects, func(o metav1.Object) bool { return !there[kindOf(o)][keyOf(o)] })
}

// fromCache returns the Snapshot that an earlier process left, nil if there is none.
func (a *API) fromCache(d *disruption) *model.Snapshot {
	objects, at, err := a.cache.load()
	if err != nil {
		a.log.Warn("the API server does not answer and there is no state of before", "error", err)
		return nil
	}
	now := time.Now() // from here on the age is measured, whatever is done to the wall clock
	at = now.Add(-max(0, now.Sub(at)))
	a.cachedAt.Store(&at)
	a.log.Warn("the API server does not answer: the state kept on this node is used until it does",
		"age", time.Since(at).Round(time.Second), "objects", len(objects))
	d.recall(objects, now)
	changes := make([]change, 0, len(objects))
	for _, o := range objects {
		changes = append(changes, change{kind: kindOf(o), key: keyOf(o), object: o})
	}
	for _, r := range a.replicas {
		r.seed(objects)
	}
	s := newWorld().apply(changes)
	s.Recalled = true
	s.Problems = model.SortProblems(append(s.Problems, a.cacheProblem(at)))
	return s
}

// save writes the cache when there is something new, not too often, and at the end. While nothing is new it notes
// that the state is still true. What could not be written is tried again: the older state must not be called true instead.
func (a *API) save(ctx context.Context, saved *shelf) {
	tick := time.NewTicker(a.options.CacheEvery)
	defer tick.Stop()
	var objects []metav1.Object
	var unwritten bool
	write := func() {
		if fresh, ok := saved.take(); ok {
			objects, unwritten = fresh, true
		}
		var err error
		switch {
		case unwritten:
			if err = a.cache.store(objects, time.Now().Add(-a.Age())); err == nil {
				objects, unwritten = nil, false
			}
		case a.cachedAt.Load() == nil && a.Age() == 0:
			err = a.cache.touch(time.Now())
		}
		a.keeps(err)
	}
	for {
		select {
		case <-ctx.Done():
			write()
			return
		case <-tick.C:
			write()
		}
	}
}

// keeps says once that the cache cannot be written, with the error of the first time, and once that it can be again.
func (a *API) keeps(err error) {
	switch before := a.unkept.Load(); {
	case err != nil && before == nil:
		p := model.Problemf(a.ref(), ReasonCacheNotWritten,
			"the state cannot be kept for a start without the API server: make room on this node's disk and the folder writable: %v", err)
		a.unkept.Store(&p)
		a.log.Warn("the state cannot be kept for a start without the API server", "error", err)
	case err == nil && before != nil:
		a.unkept.Store(nil)
		a.log.Info("the state is kept for a start without the API server again")
	default:
		return
	}
	a.notify()
}
