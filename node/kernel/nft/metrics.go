package nft

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	batches, changes, failures, repairs, rebuilds prometheus.Counter

	seconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "hythe_nft_" + name, Help: help})
	}
	m := metrics{
		batches:  counter("batches_total", "Transactions sent to nftables."),
		changes:  counter("element_changes_total", "Elements of nftables maps and sets that were inserted, replaced or removed."),
		failures: counter("failures_total", "Changes that nftables refused at first."),
		repairs:  counter("repairs_total", "Times that the table was read since somebody else may have changed it."),
		rebuilds: counter("rebuilds_total", "Times that the whole table was written."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hythe_nft_set_seconds",
			Help: "Time to bring the table to a wanted state.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8)}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.batches, m.changes, m.failures, m.repairs, m.rebuilds, m.seconds} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
