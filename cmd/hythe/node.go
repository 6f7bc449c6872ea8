package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/lb/members"
	"hythe.dev/hythe/lb/speaker"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/health"
	"hythe.dev/hythe/node/kernel/conntrack"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft"
	"hythe.dev/hythe/node/localhost"
	"hythe.dev/hythe/node/overlay"
	"hythe.dev/hythe/node/proxy"
)

func newNodeCommand() *cobra.Command {
	n := node{}
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a node's overlay, Service datapath and VIP announcement; install the CNI plugin",
		Long: `The node agent keeps this node's part of the road: the overlay to other nodes, ClusterIP, NodePort
and LoadBalancer in nftables, and the announcement of the VIPs that this node owns. It installs the CNI
plugin last of all, when pods can work. What it put into the kernel stays when it ends.`,
		Example: "  hythe node --node node1 --manifests manifests/ --state state/ --heartbeat-key key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := n.start("node"); err != nil {
				return err
			}
			return n.run(cmd.Context())
		},
	}
	n.addFlags(cmd, "127.0.0.1:9903")
	n.addCacheFlag(cmd, "for example /var/lib/hythe/cache")
	n.addNodeFlags(cmd)
	cmd.AddCommand(newCleanupCommand())
	return cmd
}

const (
	// repairEvery is how long a pod may be without a route that somebody deleted.
	repairEvery = 5 * time.Second
	// repairAge spares pods whose ADD may not be over.
	repairAge = 30 * time.Second
	// sweepEvery is how often leases of pods that are gone are looked for, and files of the plugin that somebody deleted.
	sweepEvery = time.Minute
	// sweepAge spares leases whose ADD may not be over.
	sweepAge = 5 * time.Minute
)

// reportEvery is how old a node's Report may be; it is written on change only.
const reportEvery = 500 * time.Millisecond

// A nodeOptions is what an administrator decides for the agents.
type nodeOptions struct {
	name                    string
	dataDir, runDir         string
	cniConfDir, cniBinDir   string
	cniPlugin               string
	heartbeatKey            string
	iface                   string
	bootID                  string // a file, empty for the kernel's
	overlay                 overlay.Settings
	withoutProxy, withoutLB bool
	balancerClasses         []string
	resetGone               bool
	services                serviceOptions
	localhostNodePorts      bool
}

// A node is the agent of one node.
type node struct {
	process
	nodeOptions

	links   *link.Links
	table   *nft.Table
	flows   *conntrack.Flows
	health  *health.Server
	local   *localhost.Server // nil where NodePorts are not served at loopback addresses
	speaker *speaker.Speaker

	last  atomic.Pointer[model.Snapshot] // the newest one, nil before the first
	putMu sync.Mutex                     // held while last goes to the parts, so that none gets an older one after it

	mu     sync.Mutex
	done   map[string]bool            // what is in the kernel, by part
	issues map[string][]model.Problem // by part
	texts  map[string]func() string   // what each part wants of the kernel, for /debug
	// wantedOverlay and wantedProxy are what the last Build wants of the kernel, nil before the first.
	wantedOverlay *overlay.State
	wantedProxy   func() proxy.State
	builder       proxy.Builder  // of the part proxy
	checks        health.Builder // of the same
	addrs         ownAddresses
	// wakeProxy brings the Service datapath up to date with the newest snapshot and the leases' host ports.
	wakeProxy func()
	hosted    hosted
	// laid is the last snapshot whose overlay is in the kernel.
	laid *model.Snapshot
	// installed is what the CNI plugin was told, nil before.
	installed *cni.Config
	// started is when run began, and wroteReport whether this process has written a Report.
	started     time.Time
	wroteReport bool
}

func (n *node) addNodeFlags(cmd *cobra.Command) {
	hostname, _ := os.Hostname()
	f := cmd.Flags()
	f.StringVar(&n.name, "node", hostname, "name of this node's Node object")
	f.StringVar(&n.dataDir, "data", "/var/lib/hythe", "folder for what must survive a restart")
	f.StringVar(&n.runDir, "run", "/run/hythe", "folder for what must not survive a reboot")
	f.StringVar(&n.cniConfDir, "cni-conf-dir", "/etc/cni/net.d", "where the container runtime reads its CNI configuration; empty: install no plugin")
	f.StringVar(&n.cniBinDir, "cni-bin-dir", "/opt/cni/bin", "where the container runtime looks for CNI plugins")
	f.StringVar(&n.cniPlugin, "cni-plugin", "", "the hythe-cni binary to install (default: the one beside hythe)")
	f.StringVar(&n.heartbeatKey, "heartbeat-key", "", fmt.Sprintf("file with the key that all nodes share, a line of %d bytes or more; without it this node owns no VIP", members.MinKeyBytes))
	f.StringVar(&n.iface, "interface", "", "interface on which VIPs are announced (default: the one with the node's address)")
	f.StringVar(&n.overlay.Mode, "overlay", overlay.VXLAN, `network between nodes: "vxlan", or "none" where it exists already`)
	f.IntVar(&n.overlay.MTU, "mtu", 0, "MTU of pods in bytes (default: the underlay's less what the overlay needs)")
	f.StringVar(&n.bootID, "boot-id", "", "file that tells one boot from another (default: the kernel's)")
	_ = f.MarkHidden("boot-id") // for nodes that share a kernel
	f.BoolVar(&n.withoutProxy, "without-proxy", false, "leave Services to another proxy")
	f.StringArrayVar(&n.balancerClasses, "balancer-class", nil, `loadBalancerClass of another load balancer, whose addresses in the status of Services are served as kube-proxy does; "" stands for none, "*" for all; may be repeated`)
	f.BoolVar(&n.localhostNodePorts, "localhost-nodeports", true, "serve NodePorts at 127.0.0.1 and ::1 too, where --nodeport-addresses has them; the agent carries these connections")
	f.BoolVar(&n.resetGone, "reset-gone-endpoints", false, "reset TCP connections to endpoints that are gone, but for Services with the annotation "+v1alpha1.EndpointGoneAnnotation+": "+v1alpha1.EndpointGoneKeep)
	n.services.addFlags(f)
	f.BoolVar(&n.withoutLB, "without-lb", false, "leave VIPs to another load balancer")
}

func (n *node) run(ctx context.Context) error {
	tasks, closeAll, err := n.tasks()
	if err != nil {
		return err
	}
	defer closeAll()
	if os.Getenv("GOGC") == "" {
		tasks = append(tasks, collectBySize)
	}
	snapshots := n.sinks(&tasks)
	tasks = append(tasks,
		func(ctx context.Context) error { return n.watch(ctx, kube.NodeKinds(), snapshots) },
		func(ctx context.Context) error { return n.serve(ctx, n.adminPages()) },
		n.reports,
		n.lookBeside,
	)
	if n.cniConfDir != "" {
		tasks = append(tasks, n.keepPods)
	}
	if n.servesHostPorts() {
		tasks = append(tasks, n.watchHostPorts)
	}
	return runAll(ctx, tasks...)
}

// tasks opens the kernel and returns what must run besides the sinks.
func (n *node) tasks() (tasks []func(context.Context) error, closeAll func(), err error) {
	n.started = time.Now()
	n.done, n.issues, n.texts = map[string]bool{}, map[string][]model.Problem{}, map[string]func() string{}
	for _, dir := range []string{n.dataDir, n.runDir} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, nil, fmt.Errorf("make folder: %w", err)
		}
	}
	if n.links, err = link.New(n.log.With("part", "overlay")); err != nil {
		return nil, nil, err
	}
	n.links.Remember(sysctlsFile(n.dataDir))
	closeAll = n.links.Close
	tasks = append(tasks, n.links.Run)
	if !n.withoutProxy {
		if n.table, err = nft.New(n.log.With("part", "proxy"), n.registry); err != nil {
			return nil, nil, err
		}
		if n.flows, err = conntrack.New(n.log.With("part", "proxy"), n.registry, conntrack.Resetting(n.table.End)); err != nil {
			return nil, nil, err
		}
		n.health = health.NewServer(n.log.With("part", "health"), n.services.healthz)
		tasks = append(tasks, n.table.Run, n.flows.Run, n.health.Run)
		if n.localhostNodePorts {
			n.local = localhost.New(n.log.With("part", "proxy"))
			tasks = append(tasks, n.local.Run)
		}
	}
	if !n.withoutLB && n.heartbeatKey != "" {
		if n.speaker, err = n.newSpeaker(); err != nil {
			return nil, nil, err
		}
		tasks = append(tasks, n.speaker.Run)
	}
	n.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "hythe_node_problems", Help: "Problems of this node's parts.",
	}, func() float64 { return float64(len(n.problems())) }))
	return tasks, closeAll, nil
}

// sysctlsFile is where an agent remembers what sysctls were before it.
func sysctlsFile(dataDir string) string { return filepath.Join(dataDir, "sysctls.json") }

// sinks gives each part a task with a latest-wins channel of its own and returns where snapshots go in.
func (n *node) sinks(tasks *[]func(context.Context) error) func(*model.Snapshot) {
	log := problemLog{log: n.log}
	var logMu sync.Mutex
	part := func(name string, set func(context.Context, *model.Snapshot) ([]model.Problem, error)) *run.Latest[*model.Snapshot] {
		latest := run.NewLatest[*model.Snapshot]()
		said := "" // the last error: what fails is tried each second
		*tasks = append(*tasks, func(ctx context.Context) error {
			return run.Sink(ctx, latest, n.panics, name, func(ctx context.Context, s *model.Snapshot) error {
				var problems []model.Problem
				err := contain.Call(func() (err error) {
					problems, err = set(ctx, s)
					return err
				})
				if fault := new(contain.Panic); errors.As(err, &fault) { // not at one object, which costs that one
					problems = append(problems, model.InternalError(model.ObjectRef{Kind: "Node", Name: n.name},
						"What "+name+" did before stays as it is, without later changes", fault))
				}
				if err == nil {
					said = ""
				} else if said != err.Error() {
					said = err.Error()
					n.log.Error("the kernel does not have all that it should, it is tried again", "part", name, "error", err)
				}
				failed := n.settle(name, s, problems, err)
				logMu.Lock()
				defer logMu.Unlock()
				log.set(n.problems())
				return errors.Join(err, failed)
			})
		})
		return latest
	}
	var parts []*run.Latest[*model.Snapshot]
	parts = append(parts, part("overlay", n.setOverlay))
	if n.table != nil {
		latest := part("proxy", n.setProxy)
		parts = append(parts, latest)
		n.wakeProxy = func() {
			n.putMu.Lock()
			defer n.putMu.Unlock()
			if s := n.last.Load(); s != nil {
				latest.Put(s)
			}
		}
	}
	if n.speaker != nil {
		parts = append(parts, part("lb", func(_ context.Context, s *model.Snapshot) ([]model.Problem, error) {
			n.speaker.SetSnapshot(s)
			return nil, nil
		}))
	}
	return func(s *model.Snapshot) {
		n.putMu.Lock()
		defer n.putMu.Unlock()
		n.last.Store(s)
		for _, p := range parts {
			p.Put(s)
		}
	}
}

// newSpeaker reads the heartbeat key once: another key takes a restart, which moves no VIP.
func (n *node) newSpeaker() (*speaker.Speaker, error) {
	keys, err := members.ReadKeys(n.heartbeatKey)
	if err != nil {
		return nil, err
	}
	return speaker.New(speaker.Options{
		Node: n.name, Interface: n.iface, Data: n.dataDir, Registry: n.registry, Panics: n.panics,
		Keys: func() members.Keys { return keys }, Log: n.log.With("part", "lb"),
	})
}

// reports keeps the Report true of the VIPs, which change without a snapshot.
func (n *node) reports(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.mu.Lock()
			n.writeReport()
			n.mu.Unlock()
		}
	}
}

// keepPods repairs the node's ends of pods' links and the plugin's files, and ends leases of pods that are gone, for
// container runtimes that never call the plugin's GC.
func (n *node) keepPods(ctx context.Context) error {
	repair, sweep := time.NewTicker(repairEvery), time.NewTicker(sweepEvery)
	defer repair.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-repair.C:
			n.findStrays()
			changes, err := cni.Repair(ctx, n.dataDir, n.bootID, cni.Now(), cni.Uptime(repairAge))
			if err != nil {
				n.log.Warn("links of pods cannot be repaired", "error", err)
			}
			if changes > 0 {
				n.log.Info("links of pods repaired", "changes", changes)
			}
		case <-sweep.C:
			ended, err := cni.Sweep(n.dataDir, n.bootID, cni.Now(), cni.Uptime(sweepAge))
			if err != nil {
				n.log.Warn("addresses of pods that are gone cannot be freed", "error", err)
			}
			if ended > 0 {
				n.log.Info("addresses of pods that are gone freed", "count", ended)
			}
			n.keepPlugin()
		}
	}
}

// findStrays reports pods whose addresses are not of the node's range any more.
func (n *node) findStrays() {
	leases, err := cni.ReadLeases(n.dataDir, n.bootID)
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.issues, "pods")
	if err != nil || n.installed == nil {
		return // what cannot be read is reported where it is repaired
	}
	if strays := leases.Outside(n.installed.PodCIDRs); len(strays) > 0 {
		n.issues["pods"] = []model.Problem{model.Problemf(model.ObjectRef{Kind: "Node", Name: n.name}, "PodOutsideCIDR",
			"%d pods have addresses outside of spec.podCIDRs, which has changed, so that other nodes cannot reach them: delete these pods (the first has %s, container %s).",
			len(strays), strays[0].Addresses[0], strays[0].ContainerID)}
	}
}

// keepPlugin puts back what somebody deleted or changed of the plugin and its configuration.
func (n *node) keepPlugin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.installed == nil {
		return
	}
	delete(n.issues, "plugin")
	options, err := n.installOptions(*n.installed)
	var wrote []string
	if err == nil {
		wrote, err = cni.Reinstall(options)
	}
	if err != nil {
		n.issues["plugin"] = []model.Problem{n.notInstalled(err)}
	}
	if len(wrote) > 0 {
		n.log.Warn("files of the CNI plugin were deleted or changed by somebody, and are put back", "files", wrote)
	}
}

func (n *node) notInstalled(err error) model.Problem {
	return model.Problemf(model.ObjectRef{Kind: "Node", Name: n.name}, "PluginNotInstalled",
		"The CNI plugin cannot be brought up to date, and is tried again: %v.", err)
}

func (n *node) setOverlay(ctx context.Context, s *model.Snapshot) ([]model.Problem, error) {
	n.mu.Lock()
	laid, before := n.laid, n.issues["overlay"]
	n.mu.Unlock()
	if _, same := s.ServicesSince(laid); same {
		return before, nil
	}
	state, problems := overlay.Build(s, n.name, n.overlay)
	n.panics.Problems("overlay", problems)
	if state.Keep {
		return problems, errors.New("this node's Node object is not usable yet")
	}
	n.setWanted("overlay", state.String, func() { n.wantedOverlay = &state })
	return problems, n.links.Set(ctx, state)
}

func (n *node) setProxy(ctx context.Context, s *model.Snapshot) ([]model.Problem, error) {
	n.health.Queued()
	problems, err := n.setServices(ctx, s)
	if whole, _ := isWhole(err); whole {
		n.health.Applied()
	}
	return problems, err
}

// isWhole says whether the kernel has all that it was given, but for the frontends that it refused: they are no reason to take the node
// for one that hangs.
func isWhole(err error) (whole bool, refused []proxy.Frontend) {
	var r *nft.RefusedError
	if errors.As(err, &r) {
		return true, r.Frontends
	}
	return err == nil, nil
}

func (n *node) setServices(ctx context.Context, s *model.Snapshot) ([]model.Problem, error) {
	settings, unread := n.proxySettings()
	unread = append(unread, n.setHealth(s, settings)...)
	if problems, done := n.updateProxy(ctx, s, settings); done {
		return slices.Concat(problems, unread), nil
	}
	state, problems := n.builder.Build(s, n.name, settings)
	problems = slices.Concat(problems, unread)
	n.panics.Problems("proxy", problems)
	n.setWanted("services", state.String, func() { n.wantedProxy = func() proxy.State { return state } })
	err := n.table.Set(ctx, state)
	if tuned := n.links.Tune(conntrack.Sysctls()); tuned != nil { // Services work without
		n.log.Warn("the kernel's times for silent TCP connections stay as they are", "error", tuned)
	}
	if !s.Recalled { // a flow may be to an endpoint that came later: the API server's own state tells
		whole, refused := isWhole(err)
		n.flows.Set(state, whole, refused...)
	}
	if n.local != nil {
		n.local.Set(state)
	}
	return problems, err
}

// updateProxy does what differs since the last snapshot, if that is little and all went well before. Else the caller does
// all.
func (n *node) updateProxy(ctx context.Context, s *model.Snapshot, settings proxy.Settings) ([]model.Problem, bool) {
	change, problems, ok := n.builder.Update(s, n.name, settings)
	if !ok {
		return nil, false
	}
	if done, err := n.table.Update(ctx, change); !done || err != nil {
		return nil, false
	}
	n.flows.Update(change)
	if n.local != nil {
		n.local.Update(change)
	}
	wanted := func() proxy.State { // few ask
		state, _ := proxy.Build(s, n.name, settings)
		return state
	}
	n.setWanted("services", func() string { return wanted().String() }, func() { n.wantedProxy = wanted })
	return problems, true
}

// setWanted notes what a part wants of the kernel before it does it.
func (n *node) setWanted(page string, text func() string, set func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.texts[page] = text
	set()
}

// wantedServices is what the Service datapath should hold, nil before the first Build.
func (n *node) wantedServices() *proxy.State {
	n.mu.Lock()
	wanted := n.wantedProxy
	n.mu.Unlock()
	if wanted == nil {
		return nil
	}
	state := wanted()
	return &state
}

// settle notes what a part did. When all that pods need is in the kernel, the CNI plugin is installed, or told what
// changed; an error asks for another attempt. A Node with a pod range that the overlay refuses changes nothing for pods.
func (n *node) settle(part string, s *model.Snapshot, problems []model.Problem, err error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.issues[part] = problems
	n.issues["source"] = s.Problems
	if err == nil {
		n.done[part] = true
		if part == "overlay" {
			n.laid = s
		}
	}
	var failed error
	if n.datapathReady() && n.cniConfDir != "" {
		delete(n.issues, "cni")
		if failed = n.install(n.laid); failed != nil {
			n.issues["cni"] = []model.Problem{n.notInstalled(failed)}
		}
	}
	n.writeReport()
	return failed
}

func (n *node) datapathReady() bool {
	return n.done["overlay"] && (n.done["proxy"] || n.table == nil)
}

// networkReady says whether pods of this node can be attached, and reach other nodes, by what Hythe does.
func (n *node) networkReady() bool {
	return n.overlay.Mode != overlay.None && n.datapathReady() && (n.cniConfDir == "" || n.installed != nil)
}

func (n *node) install(s *model.Snapshot) error {
	self := s.Nodes[n.name]
	if self == nil {
		return fmt.Errorf("there is no Node %s", n.name)
	}
	address := self.Address(false)
	if !address.IsValid() {
		address = self.Address(true)
	}
	underlay, err := link.FindUnderlay(address)
	if err != nil {
		return err
	}
	config := cni.Config{PodCIDRs: self.PodCIDRs, MTU: overlay.PodMTU(n.overlay, address, underlay.MTU)}
	if n.installed != nil && n.installed.MTU == config.MTU && slices.Equal(n.installed.PodCIDRs, config.PodCIDRs) {
		return nil
	}
	options, err := n.installOptions(config)
	if err == nil {
		err = cni.Install(options)
	}
	if err != nil {
		return err
	}
	n.installed = &config
	return nil
}

func (n *node) installOptions(config cni.Config) (cni.InstallOptions, error) {
	plugin := n.cniPlugin
	if plugin == "" {
		executable, err := os.Executable()
		if err != nil {
			return cni.InstallOptions{}, fmt.Errorf("find hythe-cni: %w", err)
		}
		plugin = filepath.Join(filepath.Dir(executable), "hythe-cni")
	}
	return cni.InstallOptions{
		Plugin: plugin, BinDir: n.cniBinDir, ConfDir: n.cniConfDir, RunDir: n.runDir, DataDir: n.dataDir, BootIDFile: n.bootID,
		HostPorts: n.servesHostPorts(), Config: config,
	}, nil
}

// ready says what is missing until pods can be attached and Services work.
func (n *node) ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !n.done["overlay"]:
		return errors.New("the overlay is not in the kernel yet")
	case n.table != nil && !n.done["proxy"]:
		return errors.New("the Services are not in the kernel yet")
	case n.cniConfDir != "" && n.installed == nil:
		return errors.New("the CNI plugin is not installed yet")
	}
	return nil
}

func (n *node) problems() []model.Problem {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.allProblems()
}

func (n *node) allProblems() []model.Problem {
	var all []model.Problem
	for _, p := range n.issues {
		all = append(all, p...)
	}
	why := ""
	if n.links != nil { // not made yet
		why = n.links.Failed()
	}
	if why != "" {
		all = append(all, model.Problemf(model.ObjectRef{Kind: "Node", Name: n.name}, "LinksNotAsWanted",
			"Links or routes of the overlay are not as they should be, which is tried again each second: %s. "+
				"What exists already is another program's: see ip route, and delete it or keep that program off.",
			strings.ReplaceAll(why, "\n", "; ")))
	}
	if n.table != nil {
		all = append(all, n.table.Problems(n.name)...)
		all = append(all, n.health.Problems(n.name)...)
		if n.local != nil {
			all = append(all, n.local.Problems(n.name)...)
		}
		if usage, err := conntrack.ReadUsage(); err == nil {
			all = append(all, conntrack.Problems(n.name, usage)...)
		}
	}
	if n.speaker != nil {
		all = append(all, n.speaker.Problems()...)
	}
	return model.SortProblems(all)
}

func (n *node) owned() []netip.Addr {
	if n.speaker == nil {
		return nil
	}
	return n.speaker.Owned()
}

// settled says whether a Report would be more than a process that just started.
func (n *node) settled() bool {
	return n.datapathReady() && (n.speaker == nil || n.speaker.Settled())
}

// writeReport is called with mu held. What the process before reported stays for a while: it is still true when a
// restart changes nothing.
func (n *node) writeReport() {
	if !n.wroteReport && !n.settled() && time.Since(n.started) < patience {
		return
	}
	n.wroteReport = true
	report := v1alpha1.Report{
		Component: "node", Node: n.name, Ready: n.datapathReady(), Network: n.networkReady(), Problems: model.Reported(n.allProblems()),
	}
	for _, a := range n.owned() {
		report.Addresses = append(report.Addresses, a.String())
	}
	if s := n.last.Load(); s != nil && s.Nodes[n.name] != nil {
		report.BootID = s.Nodes[n.name].BootID // by the kubelet's word, with which it is compared
	}
	slices.Sort(report.Addresses)
	n.report(report)
}

func (n *node) adminPages() run.Admin {
	debug := map[string]func(io.Writer){
		"problems": func(w io.Writer) { writeProblems(w, n.withConnection(n.problems())) },
		"panics":   n.panics.WriteText,
	}
	for _, page := range []string{"overlay", "services"} {
		debug[page] = func(w io.Writer) {
			n.mu.Lock()
			text := n.texts[page]
			n.mu.Unlock()
			if text != nil {
				fmt.Fprintln(w, strings.TrimSpace(text()))
			}
		}
	}
	if n.speaker != nil {
		debug["vips"] = func(w io.Writer) { n.speaker.WriteText(w) }
	}
	return run.Admin{
		Ready: n.ready, Gatherer: n.registry, Debug: debug,
		Inspect: n.inspectors("node", n.name, n.getInspectors(n.traceInspectors())),
		Shared:  []string{"check", "facts", "table", "services"},
	}
}
