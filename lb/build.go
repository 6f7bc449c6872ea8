package lb

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/model"
)

// Build decides which addresses are whose. Claims of the snapshot are kept as long as their Service wants them,
// also when their pool shrinks. New addresses come from pools in the order of priority and name; in a pool the
// one behind the highest claimed is next, and free ones below it when the end is reached.
func Build(s *model.Snapshot, settings Settings) (State, []model.Problem) {
	b := &builder{snapshot: s, settings: settings, used: map[netip.Addr]model.ObjectRef{}, claims: map[model.Key][]*v1alpha1.AddressClaim{}}
	b.pools, b.problems = readPools(s)
	slices.SortFunc(b.pools, func(x, y *pool) int {
		return cmp.Or(cmp.Compare(y.priority, x.priority), cmp.Compare(x.name, y.name))
	})
	b.reserveNodes()
	b.given = given(s.Claims)
	wants := b.readServices()
	b.keep(wants)
	for _, p := range b.pools {
		p.start(b.used)
	}
	for _, urgency := range []int{asks, had, takesAny} {
		for _, w := range wants {
			if w.urgency() == urgency {
				b.containClaims(w, func() { b.allocate(w) })
			}
		}
	}
	state := State{Claims: b.allClaims(), Services: b.serviceStatus(wants)}
	state.Ingresses = b.ingressStatus()
	state.Pools = b.poolStatus(state.Claims)
	return state, model.SortProblems(b.problems)
}

type builder struct {
	snapshot *model.Snapshot
	settings Settings
	pools    []*pool // in the order of use
	used     map[netip.Addr]model.ObjectRef
	claims   map[model.Key][]*v1alpha1.AddressClaim // by Service: those that are kept or made
	released map[model.Key]bool                     // Services that a claim names and that want it no more
	given    map[model.Key]map[netip.Addr]bool      // what claims of the snapshot give to each Service
	foreign  map[netip.Addr]string                  // why a claimed address cannot be announced, see model.ForeignAddresses
	stuck    []*v1alpha1.AddressClaim               // claims that cannot be read, by a fault of Hythe's: they stay
	problems []model.Problem
}

// A want is what a Service asks for.
type want struct {
	key       model.Key
	created   time.Time
	families  []family
	addresses map[bool]netip.Addr // requested, by Is6
	had       map[bool]netip.Addr // in its status, by Is6
	pool      string              // requested
	bad       bool                // the request cannot be read: keep what is there, give nothing new
	frozen    bool                // its status stays as it is, too
}

// Services get addresses in this order: those that ask for one, those that had one and may have lost the claim of it, and
// those that would take any.
const (
	asks = iota
	had
	takesAny
)

func (w *want) urgency() int {
	switch {
	case len(w.addresses) > 0:
		return asks
	case len(w.had) > 0:
		return had
	}
	return takesAny
}

// A family is asked for; an optional one is given when a pool has it.
type family struct {
	is6, optional bool
}

func (b *builder) problem(key model.Key, reason, format string, args ...any) {
	b.problems = append(b.problems, model.Problemf(model.Ref("Service", key), reason, format, args...))
}

// reserveNodes takes the addresses of nodes out of all pools.
func (b *builder) reserveNodes() {
	for _, n := range b.snapshot.Nodes {
		for _, a := range n.Addresses {
			ref := model.ObjectRef{Kind: "Node", Name: n.Name}
			b.used[a.Unmap()] = ref
			if p := b.poolOf(a.Unmap()); p != nil {
				b.problems = append(b.problems, model.Problemf(model.ObjectRef{Kind: "AddressPool", Name: p.name}, ReasonNodeAddress,
					"%s is not used: it is the address of node %s. Take it out of the pool.", a, n.Name))
			}
		}
	}
}

func (b *builder) poolOf(a netip.Addr) *pool {
	for _, p := range b.pools {
		if p.contains(a) {
			return p
		}
	}
	return nil
}

// readServices reads the requests of Hythe's Services, the oldest first.
func (b *builder) readServices() []*want {
	var wants []*want
	for key, svc := range b.snapshot.Services.All() {
		if w := b.containWant(key, func() *want { return b.readService(key, svc) }); w != nil {
			wants = append(wants, w)
		}
	}
	slices.SortFunc(wants, func(x, y *want) int {
		return cmp.Or(model.CompareAge(x.created, y.created), model.CompareKeys(x.key, y.key))
	})
	return wants
}

// readService reads the request of one Service; nil for one that is not Hythe's.
func (b *builder) readService(key model.Key, svc *corev1.Service) *want {
	if !b.mine(key, svc) {
		return nil
	}
	w := &want{key: key, created: svc.CreationTimestamp.Time, families: families(svc), pool: svc.Annotations[v1alpha1.PoolAnnotation], had: map[bool]netip.Addr{}}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if a, err := parseAddr(in.IP); err == nil {
			w.had[a.Is6()] = a
		}
	}
	if err := w.readAddresses(svc); err != "" {
		w.bad = true
		b.problem(key, ReasonInvalidRequest, "No address is given: %s", err)
	}
	return w
}

// families follows spec.ipFamilies and spec.ipFamilyPolicy; a Service without them is given IPv4.
func families(svc *corev1.Service) []family {
	first := len(svc.Spec.IPFamilies) > 0 && svc.Spec.IPFamilies[0] == corev1.IPv6Protocol
	out := []family{{is6: first}}
	if policy := svc.Spec.IPFamilyPolicy; policy != nil && *policy != corev1.IPFamilyPolicySingleStack {
		out = append(out, family{is6: !first, optional: *policy == corev1.IPFamilyPolicyPreferDualStack})
	}
	return out
}

// readAddresses reads the requested addresses, and says what is wrong with them.
func (w *want) readAddresses(svc *corev1.Service) string {
	text := svc.Annotations[v1alpha1.AddressesAnnotation]
	if old := svc.Spec.LoadBalancerIP; old != "" {
		if text != "" && text != old {
			return "spec.loadBalancerIP and the annotation " + v1alpha1.AddressesAnnotation + " differ. Remove one."
		}
		text = old
	}
	if text == "" {
		return ""
	}
	w.addresses = map[bool]netip.Addr{}
	for part := range strings.SplitSeq(text, ",") {
		a, err := parseAddr(part)
		if err != nil {
			return "\"" + strings.TrimSpace(part) + "\" is no address."
		}
		if _, twice := w.addresses[a.Is6()]; twice {
			return "at most one address of each family can be requested."
		}
		if !slices.ContainsFunc(w.families, func(f family) bool { return f.is6 == a.Is6() }) {
			return a.String() + " is not of a family of the Service. See spec.ipFamilies and spec.ipFamilyPolicy."
		}
		w.addresses[a.Is6()] = a
	}
	return ""
}

// fits reports whether a claimed address is what w asks for, leaving pools aside that do not exist.
func (w *want) fits(a netip.Addr, from string, pools []*pool) bool {
	if w.bad {
		return true
	}
	if asked, ok := w.addresses[a.Is6()]; ok {
		return asked == a
	}
	known := slices.ContainsFunc(pools, func(p *pool) bool { return p.name == w.pool })
	return w.pool == "" || !known || from == w.pool
}

// keep marks the addresses of existing claims as used and drops the claims that nobody wants any more. A claim
// that fits no longer, or whose address turned out to be somebody else's, stays until its Service has another one; see allocate.
func (b *builder) keep(wants []*want) {
	byKey := make(map[model.Key]*want, len(wants))
	for _, w := range wants {
		byKey[w.key] = w
	}
	b.released = map[model.Key]bool{}
	for _, name := range slices.Sorted(maps.Keys(b.snapshot.Claims)) {
		c := b.snapshot.Claims[name]
		if !b.contain(model.ObjectRef{Kind: "AddressClaim", Name: name}, "The claim stays as it is", func() { b.keepClaim(name, c, byKey) }) {
			b.keepStuck(c, byKey)
		}
	}
	b.foreign = model.ForeignAddresses(b.snapshot, slices.SortedFunc(maps.Keys(b.used), netip.Addr.Compare))
	for _, w := range wants {
		b.containClaims(w, func() { b.keepOnePerFamily(w) })
	}
}

// keepClaim keeps a claim for those of its Services that still want an address of its family.
func (b *builder) keepClaim(name string, c *v1alpha1.AddressClaim, wants map[model.Key]*want) {
	a, err := parseAddr(c.Spec.Address)
	if err != nil || v1alpha1.ClaimName(a) != name {
		b.problems = append(b.problems, model.Problemf(model.ObjectRef{Kind: "AddressClaim", Name: name}, ReasonInvalidClaim,
			"The claim is removed: its name is not that of its address %q.", c.Spec.Address))
		return
	}
	var users []v1alpha1.ServiceRef
	for _, ref := range c.Spec.Services {
		key := model.Key{Namespace: ref.Namespace, Name: ref.Name}
		w := wants[key]
		if w == nil {
			b.released[key] = true
		} else if slices.ContainsFunc(w.families, func(f family) bool { return f.is6 == a.Is6() }) {
			users = append(users, ref)
		}
	}
	if len(users) == 0 {
		return
	}
	if len(users) != len(c.Spec.Services) {
		copied := *c
		copied.Spec.Services = users
		c = &copied
	}
	for _, ref := range users {
		key := model.Key{Namespace: ref.Namespace, Name: ref.Name}
		b.claims[key] = append(b.claims[key], c)
		if b.used[a].Kind != "Node" {
			b.used[a] = model.Ref("Service", key)
		}
	}
}

// keepOnePerFamily lets w keep one claim of each family, one that fits if there is one: two leaders at a moment
// may have made two.
func (b *builder) keepOnePerFamily(w *want) {
	best := map[bool]*v1alpha1.AddressClaim{}
	for _, c := range b.claims[w.key] {
		a := claimAddr(c)
		old := best[a.Is6()]
		if old == nil || !w.fits(claimAddr(old), old.Spec.Pool, b.pools) && w.fits(a, c.Spec.Pool, b.pools) {
			best[a.Is6()] = c
		}
	}
	kept := b.claims[w.key][:0]
	for _, c := range b.claims[w.key] {
		a := claimAddr(c)
		if best[a.Is6()] != c {
			continue // its address stays used in this Build: it is not given away at once
		}
		kept = append(kept, c)
		switch owner, foreign := b.foreign[a]; {
		case foreign:
			b.problem(w.key, model.ReasonForeignAddress, "%s cannot be announced: %s. Ask for another address.", a, owner)
		case b.poolOf(a) == nil:
			b.problem(w.key, ReasonOutOfPool, "%s is in no AddressPool any more. It is kept; delete the Service or ask for another address to give it back.", a)
		}
	}
	b.claims[w.key] = kept
}

// allocate gives w what it lacks.
func (b *builder) allocate(w *want) {
	if w.bad {
		return
	}
	for _, f := range w.families {
		old := b.claimOf(w, f.is6)
		if old != nil && w.fits(claimAddr(old), old.Spec.Pool, b.pools) && b.foreign[claimAddr(old)] == "" {
			continue
		}
		a, p, ok := b.find(w, f)
		if !ok {
			continue
		}
		b.used[a] = model.Ref("Service", w.key)
		if old != nil {
			b.claims[w.key] = slices.DeleteFunc(b.claims[w.key], func(c *v1alpha1.AddressClaim) bool { return c == old })
		}
		b.claims[w.key] = append(b.claims[w.key], newClaim(a, p.name, w.key))
	}
	for _, c := range b.claims[w.key] {
		if claimAddr(c).Is6() {
			b.problem(w.key, ReasonNotAnnounced, "%s is claimed but not in the status, since no node announces it: only IPv4 addresses are announced so far.", claimAddr(c))
		}
	}
}

func (b *builder) claimOf(w *want, is6 bool) *v1alpha1.AddressClaim {
	for _, c := range b.claims[w.key] {
		if claimAddr(c).Is6() == is6 {
			return c
		}
	}
	return nil
}

// find looks for an address of a family for w, or says why there is none.
func (b *builder) find(w *want, f family) (netip.Addr, *pool, bool) {
	if a, ok := w.addresses[f.is6]; ok {
		p := b.poolOf(a)
		switch owner, taken := b.used[a]; {
		case p == nil:
			b.problem(w.key, ReasonAddressNotInPool, "%s is in no AddressPool. Add it to one, or ask for another.", a)
		case w.pool != "" && p.name != w.pool:
			b.problem(w.key, ReasonAddressNotInPool, "%s is in AddressPool %s, not in %s as the annotation %s asks.", a, p.name, w.pool, v1alpha1.PoolAnnotation)
		case taken:
			b.problem(w.key, ReasonAddressInUse, "%s belongs to %s. Ask for another.", a, owner)
		default:
			return a, p, true
		}
		return netip.Addr{}, nil, false
	}
	if a, ok := w.had[f.is6]; ok {
		// Anybody may have written it: it counts as a request, and for addresses only that the Service would get unasked.
		if p := b.poolOf(a); p != nil && w.mayUse(p) && b.used[a] == (model.ObjectRef{}) {
			return a, p, true
		}
	}
	found := false
	for _, p := range b.pools {
		if !w.mayUse(p) {
			continue
		}
		found = true
		if a, ok := p.take(f.is6, b.used); ok {
			return a, p, true
		}
	}
	b.explainNone(w, f, found)
	return netip.Addr{}, nil, false
}

// mayUse says whether a Service that names no address may get one of a pool.
func (w *want) mayUse(p *pool) bool {
	return w.pool == "" && p.auto || w.pool != "" && p.name == w.pool
}

// explainNone says why no pool had an address.
func (b *builder) explainNone(w *want, f family, found bool) {
	name := map[bool]string{false: "IPv4", true: "IPv6"}[f.is6]
	switch {
	case f.optional:
	case w.pool != "" && !found:
		b.problem(w.key, ReasonPoolNotFound, "There is no AddressPool %s, which the annotation %s asks for.", w.pool, v1alpha1.PoolAnnotation)
	case w.pool != "":
		b.problem(w.key, ReasonPoolExhausted, "AddressPool %s has no free %s address. Add addresses to it or delete Services that need none.", w.pool, name)
	case !found:
		b.problem(w.key, ReasonPoolExhausted, "There is no AddressPool for Services that name none. Make one, or set autoAssign on one.")
	default:
		b.problem(w.key, ReasonPoolExhausted, "No AddressPool has a free %s address. Add addresses to one or delete Services that need none.", name)
	}
}

// newClaim makes the claim of a fresh address.
func newClaim(a netip.Addr, pool string, key model.Key) *v1alpha1.AddressClaim {
	c := &v1alpha1.AddressClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: "AddressClaim"},
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ClaimName(a)},
		Spec: v1alpha1.AddressClaimSpec{
			Address:  a.String(),
			Pool:     pool,
			Services: []v1alpha1.ServiceRef{{Namespace: key.Namespace, Name: key.Name}},
		},
	}
	if a.Is4() {
		c.Spec.Announce = []string{AnnounceARP}
	}
	return c
}

// claimAddr is the address of a claim that was checked before.
func claimAddr(c *v1alpha1.AddressClaim) netip.Addr {
	a, _ := parseAddr(c.Spec.Address)
	return a
}

func (b *builder) allClaims() []*v1alpha1.AddressClaim {
	byName := map[string]*v1alpha1.AddressClaim{}
	for _, claims := range b.claims {
		for _, c := range claims {
			byName[c.Name] = c
		}
	}
	out := slices.SortedFunc(maps.Values(byName), func(x, y *v1alpha1.AddressClaim) int {
		return claimAddr(x).Compare(claimAddr(y))
	})
	return append(out, b.stuck...)
}

// addresses lists the addresses of a Service that clients can reach, its first family first.
func (b *builder) addresses(key model.Key) []netip.Addr {
	var out []netip.Addr
	for _, c := range b.claims[key] {
		if len(c.Spec.Announce) > 0 && b.foreign[claimAddr(c)] == "" {
			out = append(out, claimAddr(c))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	if svc := b.snapshot.Services.Get(key); len(out) == 2 && svc != nil && families(svc)[0].is6 {
		slices.Reverse(out)
	}
	return out
}

func (b *builder) serviceStatus(wants []*want) []ServiceStatus {
	var out []ServiceStatus
	for _, w := range wants {
		out = append(out, b.statusOf(w))
	}
	out = append(out, b.leaving()...)
	slices.SortFunc(out, func(x, y ServiceStatus) int { return model.CompareKeys(x.Service, y.Service) })
	return out
}

// ingressStatus gives the gateway's addresses to the Ingresses that a gateway has acknowledged, and to no other:
// an address in the status is a promise.
func (b *builder) ingressStatus() []IngressStatus {
	addresses := b.addresses(b.settings.GatewayService)
	if len(addresses) == 0 {
		return nil
	}
	var entries []networkingv1.IngressLoadBalancerIngress
	for _, a := range addresses {
		entries = append(entries, networkingv1.IngressLoadBalancerIngress{IP: a.String()})
	}
	acknowledged := map[model.Key]bool{}
	for _, r := range b.snapshot.Reports {
		if r.Component != "gateway" {
			continue
		}
		for _, name := range r.Ingresses {
			ns, n, _ := strings.Cut(name, "/")
			key := model.Key{Namespace: ns, Name: n}
			if b.snapshot.Ingresses.Get(key) != nil {
				acknowledged[key] = true
			}
		}
	}
	var out []IngressStatus
	for _, key := range model.SortedKeys(acknowledged) {
		if !b.statusOfAnother(key) {
			out = append(out, IngressStatus{Ingress: key, Addresses: entries})
		}
	}
	return out
}

func (b *builder) poolStatus(claims []*v1alpha1.AddressClaim) []PoolStatus {
	claimed := map[*pool]int64{}
	for _, c := range claims {
		_ = contain.Do(func() { // told of already
			if p := b.poolOf(claimAddr(c)); p != nil {
				claimed[p]++
			}
		})
	}
	var out []PoolStatus
	for _, p := range b.pools {
		out = append(out, PoolStatus{Pool: p.name, Status: v1alpha1.AddressPoolStatus{Addresses: p.size(), Claimed: claimed[p]}})
	}
	slices.SortFunc(out, func(x, y PoolStatus) int { return cmp.Compare(x.Pool, y.Pool) })
	return out
}
