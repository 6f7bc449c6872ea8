package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// However many certificates there are, the series are few, and those of the ones that end first.
func TestCertificateCollector(t *testing.T) {
	certificates := []Certificate{{Name: DefaultCertificateName}}
	for i := range 1000 {
		certificates = append(certificates, Certificate{Name: fmt.Sprintf("shop/%03d", i), NotAfter: time.Unix(int64(10_000-i), 0)})
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(CertificateCollector{func() []Certificate { return certificates }})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	series := 0
	for _, f := range families {
		series += len(f.GetMetric())
		fmt.Fprintln(&text, f)
	}
	if series != mostExpiries+1 {
		t.Errorf("%d series", series)
	}
	for want, present := range map[string]bool{`"shop/999"`: true, `"shop/950"`: true, `"shop/949"`: false, `"default"`: false} {
		if strings.Contains(text.String(), want) != present {
			t.Errorf("%s present: %t, want %t", want, !present, present)
		}
	}
}
