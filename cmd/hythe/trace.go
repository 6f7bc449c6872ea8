package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/trace"
	"hythe.dev/hythe/internal/trace/asked"
	"hythe.dev/hythe/internal/trace/road"
)

// The exit codes of hythe trace.
const (
	exitNotArrived  = 1
	exitBadQuestion = 2
)

// traceTimeout bounds all questions of one trace.
const traceTimeout = 30 * time.Second

// A tracer is the command hythe trace.
type tracer struct {
	find    *finder
	from    string
	via     netip.Addr
	gateway string
	output  string
	live    bool
}

func newTraceCommand() *cobra.Command {
	t := &tracer{}
	cmd := &cobra.Command{
		Use:   "trace URL | ADDRESS:PORT[/udp] | NAMESPACE/SERVICE[:PORT]",
		Short: "Say hop by hop why a request arrives, or why not",
		Long: `Trace follows a request along its whole road: the claim of its address, the node that owns it, who answers ARP on
the wire, the Service in that node's kernel, Envoy's listener, certificate, host, route and cluster, the overlay, the pod.
Each line is read back from where it runs: Envoy's own configuration, the kernel, the LAN. What differs from what
Hythe wants to be there is marked; the last line says what to do.

With --live it also sends one such request, marked by a header, and prints where it really was: what the client saw,
the connections that the nodes' conntrack has, what Envoy noted, and which pod answered, with times. It is sent from
this machine; in a lab from the client, or from the node or pod of --from.

It ends with 0 if the request arrives, with 1 if it does not or only in part, with 2 if the question is wrong.`,
		Example: `  hythe trace https://shop.example.com/cart
  hythe trace 203.0.113.10:443 --from 198.51.100.10
  hythe trace shop/web:80 --from node2
  hythe trace https://shop.example.com/ --live`,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := t.run(cmd, args)
			if errors.Is(err, asked.ErrQuestion) {
				return exitError{exitBadQuestion, err.Error()}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.from, "from", "", "where the request comes from: a node, a pod as NAMESPACE/NAME, or an address (default: outside of the cluster)")
	f.TextVar(&t.via, "via", netip.Addr{}, "address that the URL's host stands for (default: that of the gateways' Service)")
	f.StringVar(&t.gateway, "gateway-service", defaultGatewayService.String(), "NAMESPACE/NAME of the Service that leads to the gateways (default in a cluster: hythe-gateway, where Hythe is)")
	f.StringVarP(&t.output, "output", "o", "text", `"text", "json", or "evidence": all that was read back, for a report of a wrong answer`)
	f.BoolVar(&t.live, "live", false, "send a marked request, and print the hops that it really took")
	t.find = addFindFlags(cmd)
	return cmd
}

func (t *tracer) run(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return exitError{exitBadQuestion, fmt.Sprintf("trace what? It takes one URL, ADDRESS:PORT or NAMESPACE/SERVICE, and not %d: see hythe trace --help", len(args))}
	}
	if !cmd.Flags().Changed("gateway-service") && t.find.asksCluster() {
		t.gateway = t.find.namespace + "/" + chartGatewayService
	}
	gateway, err := parseKey(t.gateway)
	if err != nil {
		return exitError{exitBadQuestion, "--gateway-service: " + err.Error()}
	}
	if t.output != "text" && t.output != "json" && t.output != "evidence" {
		return exitError{exitBadQuestion, fmt.Sprintf("--output %q: want text, json or evidence", t.output)}
	}
	q, err := asked.Parse(args[0], t.from, t.via)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), traceTimeout)
	defer cancel()
	cluster, err := t.find.open(ctx)
	if err != nil {
		return err
	}
	evidence := road.Ask(ctx, cluster, q, gateway)
	out := traced{}
	if out.Trace, err = trace.Build(q, evidence); err != nil {
		return err
	}
	if t.live {
		if err := t.send(ctx, cluster, evidence, &out); err != nil {
			return err
		}
	}
	if err := t.write(cmd.OutOrStdout(), out, evidence); err != nil {
		return err
	}
	if out.Verdict != trace.Arrives && out.Verdict != trace.Perhaps || out.Live != nil && out.Live.Verdict != trace.Arrives {
		return exitError{code: exitNotArrived}
	}
	return nil
}

// A traced is what is printed.
type traced struct {
	trace.Trace
	Live *trace.Trace `json:"live,omitempty"`

	sent *asked.LiveEvidence
}

// send sends a marked request, if it has somewhere to go.
func (t *tracer) send(ctx context.Context, c *inspect.Cluster, ev asked.Evidence, out *traced) error {
	q := out.Question
	if q.Protocol != "tcp" {
		return exitError{exitBadQuestion, "--live is for URLs and TCP: no answer can be waited for by " + q.Protocol}
	}
	to, ok := road.Destination(q, ev)
	if !ok {
		return nil // the trace says why
	}
	client, err := t.find.client(t.from)
	if err != nil {
		return exitError{exitBadQuestion, err.Error()}
	}
	sent := road.Live(ctx, c, q, to, client)
	live := trace.BuildLive(out.Trace, sent)
	out.Live, out.sent = &live, &sent
	return nil
}

func (t *tracer) write(w io.Writer, out traced, evidence asked.Evidence) error {
	var what any = out
	switch t.output {
	case "text":
		bold, _ := colours(w)
		out.WriteText(w, evidence.Now, bold != "")
		if out.Live != nil {
			fmt.Fprintf(w, "\nA marked request, sent now:\n")
			out.Live.WriteText(w, evidence.Now, bold != "")
		}
		return nil
	case "evidence":
		what = struct {
			Question asked.Question      `json:"question"`
			Evidence asked.Evidence      `json:"evidence"`
			Live     *asked.LiveEvidence `json:"live,omitempty"`
		}{out.Question, evidence, out.sent}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(what)
}
