package server

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	pushes, resources, acks, nacks *prometheus.CounterVec
	streams                        prometheus.Gauge
	settled                        prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	byKind := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "hythe", Subsystem: "xds", Name: name, Help: help},
			[]string{"kind"})
	}
	m := &metrics{
		pushes:    byKind("pushes_total", "Responses sent to Envoy."),
		resources: byKind("resources_total", "Resources and removals in the responses sent to Envoy."),
		acks:      byKind("acks_total", "Responses that Envoy accepted."),
		nacks:     byKind("nacks_total", "Responses that Envoy refused."),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "hythe", Subsystem: "xds", Name: "streams", Help: "Connected Envoys.",
		}),
		settled: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "hythe", Subsystem: "xds", Name: "settle_seconds",
			Help:    "Time from a change until Envoy acknowledged all of it.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}),
	}
	if registerer == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.pushes, m.resources, m.acks, m.nacks, m.streams, m.settled} {
		errs = append(errs, registerer.Register(c))
	}
	return m, errors.Join(errs...)
}
