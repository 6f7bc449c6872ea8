package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/internal/check"
	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/inspect/show"
	"hythe.dev/hythe/lb"
	"hythe.dev/hythe/node/overlay"
)

const checkLong = `Check looks at what Hythe needs of a machine, and at what is in its way: kernel, sysctls and source checks, MTU, ranges that
overlap, other pod networks, Service proxies and load balancers, twin MAC addresses, firewalls, clock, conntrack, limits and
disks. Each finding says what was seen and what would help. Nothing is changed.

Without --lab, --kubeconfig and --admin it looks at this machine, also before anything of Hythe runs here. With them it asks the agents of
the nodes, who know the cluster's ranges too, and send packets of full length to each other: on their own network and
through the overlay.

It exits with 1 if there are errors.`

// checkOptions are the flags of hythe check.
type checkOptions struct {
	*finder
	local           check.Options
	peers           []string
	pods, services  []string
	pools           []string
	addresses, node string
	output          string
	bad             bool
}

func newCheckCommand() *cobra.Command {
	o := checkOptions{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether machines are fit to be nodes, and what would help",
		Long:  checkLong,
		Example: `  hythe check --peers 192.168.50.12,192.168.50.13 --pod-cidr 10.244.0.0/16 --service-cidr 10.96.0.0/12
  hythe check --lab ""
  hythe check --kubeconfig ~/.kube/config
  hythe check --admin 127.0.0.1:9903 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.finder = addFindFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.local.CNIDir, "cni-conf-dir", "/etc/cni/net.d", "where the container runtime reads its CNI configuration")
	f.StringSliceVar(&o.local.Dirs, "data", []string{"/var/lib/hythe", "/run"}, "folders that Hythe writes to")
	f.StringSliceVar(&o.peers, "peers", nil, "addresses of other nodes, to which packets are sent")
	f.StringSliceVar(&o.pods, "pod-cidr", nil, "range of pods")
	f.StringSliceVar(&o.services, "service-cidr", nil, "range of Services")
	f.StringSliceVar(&o.pools, "pool", nil, "addresses for load balancers, as in an AddressPool")
	f.StringVar(&o.addresses, "address", "", "this node's address (default: that of the interface with the default route)")
	f.StringVar(&o.node, "node", "", "with --lab, --kubeconfig or --admin: ask this node only")
	f.StringVarP(&o.output, "output", "o", "text", "text or json")
	f.BoolVar(&o.bad, "problems", false, "leave out what is as it should be")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]cobra.Completion{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// A checked is what one machine's check found.
type checked struct {
	Node     string          `json:"node,omitempty"`
	Findings []check.Finding `json:"findings"`
}

func (o *checkOptions) run(ctx context.Context, stdout, stderr io.Writer) error {
	if o.output != "text" && o.output != "json" {
		return fmt.Errorf("unknown output %q: use text or json", o.output)
	}
	var results []checked
	if o.chosen() || o.inCluster() || len(o.admin) > 0 {
		cluster, err := o.open(ctx)
		if err != nil {
			return err
		}
		warnSilent(stderr, cluster)
		var errs []error
		if results, errs = askChecks(ctx, cluster, o.node); len(results) == 0 {
			return errors.Join(append(errs, errors.New("no node agent was asked: name one by --admin, or a cluster by --kubeconfig"))...)
		}
		for _, err := range errs {
			fmt.Fprintf(stderr, "Warning: %v\n", err)
		}
	} else {
		findings, err := o.here(ctx)
		if err != nil {
			return err
		}
		results = []checked{{Findings: findings}}
	}
	if o.bad {
		for i := range results {
			results[i].Findings = slices.DeleteFunc(results[i].Findings, func(f check.Finding) bool { return f.Severity == check.OK })
		}
	}
	if err := o.write(stdout, results); err != nil {
		return err
	}
	for _, r := range results {
		if check.Worst(r.Findings) == check.Error {
			return exitError{code: 1}
		}
	}
	return nil
}

// askChecks asks the agents, or the one on a node.
func askChecks(ctx context.Context, cluster *inspect.Cluster, node string) ([]checked, []error) {
	q := question{cluster: cluster, node: node}
	answers, errs := ask[[]check.Finding](ctx, &q, "node", "check")
	var out []checked
	for _, a := range answers {
		out = append(out, checked{a.Node, a.Answer})
	}
	return out, errs
}

// here checks this machine with what a person said of the cluster.
func (o *checkOptions) here(ctx context.Context) ([]check.Finding, error) {
	c, err := o.cluster()
	if err != nil {
		return nil, err
	}
	o.local.Cluster = c
	facts := check.Read(ctx, o.local)
	facts.Probes = check.Send(ctx, check.Plan(facts))
	return check.Build(facts), nil
}

func (o *checkOptions) cluster() (check.Cluster, error) {
	var c check.Cluster
	for _, text := range o.peers {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return c, fmt.Errorf("--peers: %w", err)
		}
		c.Peers = append(c.Peers, check.Peer{Node: text, Address: a})
	}
	for _, ranges := range []struct {
		flag  string
		texts []string
		into  *[]netip.Prefix
	}{{"--pod-cidr", o.pods, &c.PodCIDRs}, {"--service-cidr", o.services, &c.Services}} {
		for _, text := range ranges.texts {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return c, fmt.Errorf("%s: %w", ranges.flag, err)
			}
			*ranges.into = append(*ranges.into, p)
		}
	}
	for _, text := range o.pools {
		r, err := lb.ParseRange(text)
		if err != nil {
			return c, fmt.Errorf("--pool: %w", err)
		}
		c.Pools = append(c.Pools, check.Pool{Name: text, First: r.First, Last: r.Last})
	}
	own, err := netip.ParseAddr(o.addresses)
	if o.addresses != "" && err != nil {
		return c, fmt.Errorf("--address: %w", err)
	}
	if o.addresses == "" {
		own = check.OwnAddress()
	}
	if own.IsValid() {
		c.Addresses = []netip.Addr{own}
	}
	return c, nil
}

func (o *checkOptions) write(w io.Writer, results []checked) error {
	if o.output == "json" {
		data, err := json.MarshalIndent(results, "", "  ")
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		_, err = fmt.Fprintln(w, string(data))
		return err
	}
	var mark func(check.Severity) (string, string)
	if _, plain := colours(w); plain != "" {
		mark = func(s check.Severity) (string, string) {
			return show.Code(map[check.Severity]show.Tone{check.OK: show.Good, check.Warning: show.Warn, check.Error: show.Bad}[s])
		}
	}
	count := map[check.Severity]int{}
	for _, r := range results {
		if r.Node != "" {
			fmt.Fprintf(w, "%s:\n", r.Node)
		}
		check.WriteText(w, r.Findings, mark)
		for _, f := range r.Findings {
			count[f.Severity]++
		}
	}
	_, err := fmt.Fprintf(w, "%s, %s\n", plural(count[check.Error], "error"), plural(count[check.Warning], "warning"))
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// inspectCheck checks the machine of this agent.
func (n *node) inspectCheck(ctx context.Context, _ url.Values) (any, error) {
	facts := n.facts(ctx)
	facts.Probes = check.Send(ctx, check.Plan(facts))
	return check.Build(facts), nil
}

// facts are those of this agent's machine, with what it knows of the cluster.
func (n *node) facts(ctx context.Context) check.Facts {
	o := check.Options{CNIDir: n.cniConfDir, Dirs: []string{n.dataDir, n.runDir}}
	if s, err := n.snapshot(); err == nil {
		o.Cluster = check.ClusterOf(s, n.name)
		o.Cluster.Overlay, o.Cluster.Proxy = n.overlay.Mode != overlay.None, n.table != nil
		n.mu.Lock()
		if n.installed != nil {
			o.Cluster.PodMTU = n.installed.MTU
		}
		n.mu.Unlock()
		n.addHeard(&o.Cluster)
	}
	return check.Read(ctx, o)
}

// addHeard adds which nodes' heartbeats come.
func (n *node) addHeard(c *check.Cluster) {
	if n.speaker == nil {
		return
	}
	c.Heartbeats = true
	for _, p := range n.speaker.Inspect(netip.Addr{}).Peers {
		for i := range c.Peers {
			if c.Peers[i].Node == p.Node {
				c.Peers[i].Heard = p.Alive
			}
		}
	}
}
