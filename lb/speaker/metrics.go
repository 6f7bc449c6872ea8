package speaker

import (
	"github.com/prometheus/client_golang/prometheus"

	"hythe.dev/hythe/lb/arp"
)

// A collector reads the metrics of a Speaker when they are asked for.
type collector struct{ s *Speaker }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hythe_"+name, help, labels, nil)
}

// Describe sends nothing: the collector is unchecked, since its descriptions are made when collecting.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends all metrics.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	alive := c.s.members.Alive()
	gauge(desc("members_alive", "Other nodes that were heard lately."), float64(len(alive)))
	age := desc("member_heartbeat_age_seconds", "Time since the last heartbeat of a living node.", "node")
	for _, m := range alive {
		gauge(age, m.Age.Seconds(), m.Name)
	}
	received := desc("heartbeats_received_total", "Heartbeats received, by outcome.", "outcome")
	for outcome, n := range c.s.members.Received() {
		counter(received, n, outcome)
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	gauge(desc("vips_owned", "VIPs that this node owns."), float64(len(c.s.owned())))
	takeovers := desc("vip_takeovers_total", "VIPs that this node has taken, by reason.", "reason")
	for reason, n := range c.s.takeovers {
		counter(takeovers, n, reason)
	}
	releases := desc("vip_releases_total", "VIPs that this node has stopped owning, by reason.", "reason")
	for reason, n := range c.s.releases {
		counter(releases, n, reason)
	}
	var frames arp.Counters
	if c.s.arp != nil {
		frames = c.s.arp.Counters()
	}
	counter(desc("arp_requests_answered_total", "ARP requests for owned VIPs that were answered."), frames.Answered)
	counter(desc("arp_announcements_total", "Gratuitous ARP frames sent."), frames.Announced)
	counter(desc("arp_conflicts_total", "ARP frames of hosts that are no nodes and claim an owned VIP."), frames.Conflicts)
}
