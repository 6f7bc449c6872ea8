package gateway_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

type pemPair struct{ chain, key []byte }

var pairs sync.Map // by text, so that two manifests of one test can hold the same pair

// pair makes a self-signed key pair for the names in text, which may hold these words as well: expired, early,
// p224, p384, ed25519, rsa1024, rsa2048, serial2 (another pair for the same names), rsa16384 (a certificate for such a
// key, beside a small one), long (a chain of more than a hundred KiB).
func pair(tb testing.TB, text string) (chain, key []byte) {
	tb.Helper()
	if known, ok := pairs.Load(text); ok {
		return known.(pemPair).chain, known.(pemPair).key
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    now.AddDate(0, 0, -1), NotAfter: now.AddDate(1, 0, 0),
	}
	generate := func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }
	for _, word := range strings.Fields(text) {
		switch word {
		case "expired":
			template.NotBefore, template.NotAfter = now.AddDate(-1, 0, 0), now.Add(-time.Hour)
		case "early":
			template.NotBefore = now.Add(time.Hour)
		case "serial2":
			template.SerialNumber = big.NewInt(2)
		case "p256", "unusual", "rubbish", "rsa16384", "long": // as it is, or below
		case "p224":
			generate = func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P224(), rand.Reader) }
		case "p384":
			generate = func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }
		case "p521":
			generate = func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) }
		case "ed25519":
			generate = func() (crypto.Signer, error) { _, k, err := ed25519.GenerateKey(rand.Reader); return k, err }
		case "rsa1024":
			generate = func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 1024) }
		case "rsa2048":
			generate = func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }
		default:
			template.DNSNames = append(template.DNSNames, word)
		}
	}
	var public crypto.PublicKey
	copies := 1
	for _, word := range strings.Fields(text) {
		switch word {
		case "rsa16384":
			public = &rsa.PublicKey{N: new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 16384), big.NewInt(1)), E: 65537}
		case "long":
			copies = 400
		}
	}
	signer, err := generate()
	if err != nil {
		tb.Fatal(err)
	}
	if public == nil {
		public = signer.Public()
	}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: template.Subject}, public, signer)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		tb.Fatal(err)
	}
	made := pemPair{
		bytes.Repeat(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), copies),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
	pairs.Store(text, made)
	return made.chain, made.key
}
