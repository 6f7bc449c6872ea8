package gateway

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// mostExpiries bounds the series: an alert asks for the certificates that end next, and a gateway may have many thousands.
const mostExpiries = 50

var (
	expiry = prometheus.NewDesc("hythe_gateway_certificate_expiry_timestamp_seconds",
		"When a certificate ends, or one of its chain, in seconds since 1970; for the 50 that end first.", []string{"secret"}, nil)
	served = prometheus.NewDesc("hythe_gateway_certificates", "Certificates of Secrets that are served.", nil, nil)
)

// A CertificateCollector tells Prometheus when certificates end.
type CertificateCollector struct {
	// Certificates are those of the latest Config.
	Certificates func() []Certificate
}

// Describe is of prometheus.Collector.
func (CertificateCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- expiry
	descs <- served
}

// Collect is of prometheus.Collector.
func (c CertificateCollector) Collect(metrics chan<- prometheus.Metric) {
	var known []Certificate
	for _, certificate := range c.Certificates() {
		if !certificate.NotAfter.IsZero() { // not the one that the gateway made itself
			known = append(known, certificate)
		}
	}
	metrics <- prometheus.MustNewConstMetric(served, prometheus.GaugeValue, float64(len(known)))
	slices.SortStableFunc(known, func(a, b Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	for _, certificate := range known[:min(len(known), mostExpiries)] {
		metrics <- prometheus.MustNewConstMetric(expiry, prometheus.GaugeValue, float64(certificate.NotAfter.Unix()), certificate.Name)
	}
}
