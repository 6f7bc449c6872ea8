package readback

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
)

// Drops reads the counters in the calling thread's network namespace: one Drop for each of ruleset.Reasons, sorted; none
// where there is no table.
func Drops() ([]Drop, error) { return dropsIn(0) }

func dropsIn(netns int) ([]Drop, error) {
	c, err := nfnetlink.Dial(netns)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	counters, err := c.Counters()
	if err != nil {
		return nil, err
	}
	var out []Drop
	for _, k := range counters {
		if slices.Contains(ruleset.Reasons(), k.Name) {
			out = append(out, Drop{Reason: k.Name, Packets: k.Packets, Bytes: k.Bytes})
		}
	}
	slices.SortFunc(out, func(a, b Drop) int { return strings.Compare(a.Reason, b.Reason) })
	return out, nil
}

// dropCounters are the counters as Prometheus reads them.
type dropCounters struct {
	netns          int
	packets, bytes *prometheus.Desc
}

// NewDropCounters returns the counters in the network namespace of the file descriptor netns, or in that of the calling
// thread if it is 0, for Prometheus. Each collection reads the kernel.
func NewDropCounters(netns int) prometheus.Collector {
	describe := func(what string) *prometheus.Desc {
		return prometheus.NewDesc("hythe_node_dropped_"+what+"_total",
			"What the Service datapath dropped or refused ("+what+"), by reason. A new version of the rules begins at zero.",
			[]string{"reason"}, nil)
	}
	return dropCounters{netns, describe("packets"), describe("bytes")}
}

// Describe implements prometheus.Collector.
func (d dropCounters) Describe(out chan<- *prometheus.Desc) {
	out <- d.packets
	out <- d.bytes
}

// Collect implements prometheus.Collector. A kernel that does not answer leaves no numbers.
func (d dropCounters) Collect(out chan<- prometheus.Metric) {
	drops, err := dropsIn(d.netns)
	if err != nil {
		out <- prometheus.NewInvalidMetric(d.packets, err)
		return
	}
	for _, drop := range drops {
		out <- prometheus.MustNewConstMetric(d.packets, prometheus.CounterValue, float64(drop.Packets), drop.Reason)
		out <- prometheus.MustNewConstMetric(d.bytes, prometheus.CounterValue, float64(drop.Bytes), drop.Reason)
	}
}
