package scale

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/model"
)

// A world is a Config that grows by hosts, with a certificate each, of one key.
type world struct {
	gateway.Config
	key *ecdsa.PrivateKey
	pem []byte
}

func newWorld() (*world, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	w := &world{key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	c, err := w.certificate(gateway.DefaultCertificateName)
	w.Certificates = []gateway.Certificate{c}
	return w, err
}

func (w *world) certificate(name string, serverNames ...string) (gateway.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(w.Certificates) + 1)), Subject: pkix.Name{CommonName: name}, DNSNames: serverNames,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &w.key.PublicKey, w.key)
	if err != nil {
		return gateway.Certificate{}, fmt.Errorf("make certificate of %s: %w", name, err)
	}
	return gateway.Certificate{
		Name: name, ServerNames: serverNames, Key: w.pem, Since: time.Unix(int64(len(w.Certificates)), 0),
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}, nil
}

func host(n int) string { return fmt.Sprintf("h%05d.example.test", n) }

// grow adds hosts until there are so many. What it had before is not changed.
func (w *world) grow(hosts int) error {
	w.Hosts, w.Certificates = slices.Clone(w.Hosts), slices.Clone(w.Certificates)
	for n := len(w.Hosts); n < hosts; n++ {
		name := fmt.Sprintf("shop/h%05d", n)
		c, err := w.certificate(name, host(n))
		if err != nil {
			return err
		}
		w.Certificates = append(w.Certificates, c)
		w.Hosts = append(w.Hosts, gateway.Host{
			Name: host(n), Certificate: name, Ingresses: []model.Key{{Namespace: "shop", Name: host(n)}},
			Routes: []gateway.Route{{Match: gateway.Prefix, Path: "/api", Status: 204}, {Match: gateway.Prefix, Path: "/", Status: 200}},
		})
	}
	slices.SortFunc(w.Certificates, func(a, b gateway.Certificate) int { return strings.Compare(a.Name, b.Name) })
	return nil
}
