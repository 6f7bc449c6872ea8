package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"hythe.dev/hythe/conformance/rig/cluster"
)

// certificateLife is how long certificates are valid; a cluster of the rig is shorter.
const certificateLife = 90 * 24 * time.Hour

// writeAuthority makes the cluster's authority and the key that signs service accounts' tokens.
func writeAuthority(c cluster.Cluster) error {
	if err := os.MkdirAll(c.Path("pki"), 0o700); err != nil {
		return fmt.Errorf("make folder for keys: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hythe-cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key for service accounts: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make authority: %w", err)
	}
	return errors.Join(
		writePEM(c.Path("pki", "ca.crt"), "CERTIFICATE", der),
		writeKey(c.Path("pki", "ca.key"), key),
		writeKey(c.Path("pki", "service-accounts.key"), accounts),
	)
}

// issue writes a certificate with its key, and a kubeconfig if one is wanted.
func issue(c cluster.Cluster, want cluster.Certificate) error {
	pair, err := readAuthority(c)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", want.Name, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", want.Name, err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: want.User, Organization: want.Groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    want.Hosts,
	}
	for _, addr := range want.Addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, pair.certificate, key.Public(), pair.key)
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", want.Name, err)
	}
	if err := errors.Join(
		writePEM(c.Path("pki", want.Name+".crt"), "CERTIFICATE", der),
		writeKey(c.Path("pki", want.Name+".key"), key),
	); err != nil || !want.Kubeconfig {
		return err
	}
	return writeFile(c.Path("config", want.Name+".kubeconfig"), c.KubeconfigFile(want), 0o600)
}

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func readAuthority(c cluster.Cluster) (a authority, err error) {
	read := func(name string) []byte {
		data, readErr := os.ReadFile(c.Path("pki", name))
		err = errors.Join(err, readErr)
		if block, _ := pem.Decode(data); block != nil {
			return block.Bytes
		}
		return nil
	}
	der, keyDER := read("ca.crt"), read("ca.key")
	if err == nil {
		a.certificate, err = x509.ParseCertificate(der)
	}
	if err == nil {
		a.key, err = x509.ParseECPrivateKey(keyDER)
	}
	if err != nil {
		return a, fmt.Errorf("read authority: %w", err)
	}
	return a, nil
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key) // kube-apiserver reads no PKCS 8 for service accounts
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return writePEM(file, "EC PRIVATE KEY", der)
}

func writePEM(file, kind string, der []byte) error {
	return writeFile(file, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})), 0o600)
}

func writeFile(file, data string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := os.WriteFile(file, []byte(data), mode); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}
