package envoy_test

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/xds"
)

// handshake is what a client gets that offers a configuration.
func handshake(r *envoytest.Rig, config *tls.Config) (tls.ConnectionState, error) {
	config.InsecureSkipVerify = true
	conn, err := tls.Dial("tcp", r.Settings.HTTPS.String(), config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

// Which versions, ciphers and key exchanges clients get, by profile.
func TestTLSProfiles(t *testing.T) {
	only := func(version uint16, suites ...uint16) *tls.Config {
		return &tls.Config{ServerName: tlsHost, MinVersion: version, MaxVersion: version, CipherSuites: suites}
	}
	const refused = "refused"
	cases := []struct {
		name   string
		offer  *tls.Config
		want   map[xds.TLSProfile]string
		curves []tls.CurveID
	}{
		{"TLS 1.0", only(tls.VersionTLS10), map[xds.TLSProfile]string{xds.TLSIntermediate: refused, xds.TLSModern: refused}, nil},
		{"TLS 1.1", only(tls.VersionTLS11), map[xds.TLSProfile]string{xds.TLSIntermediate: refused, xds.TLSModern: refused}, nil},
		{"TLS 1.2", only(tls.VersionTLS12), map[xds.TLSProfile]string{xds.TLSIntermediate: "TLS 1.2 X25519", xds.TLSModern: refused}, []tls.CurveID{tls.X25519, tls.CurveP256}},
		{"TLS 1.2 with CBC", only(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA), map[xds.TLSProfile]string{xds.TLSIntermediate: refused, xds.TLSModern: refused}, nil},
		{"TLS 1.2 with ChaCha20", only(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256), map[xds.TLSProfile]string{xds.TLSIntermediate: "TLS 1.2 CurveP256", xds.TLSModern: refused}, []tls.CurveID{tls.CurveP256}},
		{"TLS 1.3", only(tls.VersionTLS13), map[xds.TLSProfile]string{xds.TLSIntermediate: "TLS 1.3 X25519MLKEM768", xds.TLSModern: "TLS 1.3 X25519MLKEM768"}, nil},
		{"TLS 1.3 of an older client", only(tls.VersionTLS13), map[xds.TLSProfile]string{xds.TLSIntermediate: "TLS 1.3 X25519", xds.TLSModern: "TLS 1.3 X25519"}, []tls.CurveID{tls.X25519, tls.CurveP256}},
		{"TLS 1.3 with P-384 only", only(tls.VersionTLS13), map[xds.TLSProfile]string{xds.TLSIntermediate: "TLS 1.3 CurveP384", xds.TLSModern: "TLS 1.3 CurveP384"}, []tls.CurveID{tls.CurveP384}},
		{"TLS 1.3 with P-521 only", only(tls.VersionTLS13), map[xds.TLSProfile]string{xds.TLSIntermediate: refused, xds.TLSModern: refused}, []tls.CurveID{tls.CurveP521}},
	}
	r := envoytest.New(t, nil)
	config := tlsConfig(t, "1")
	for _, profile := range []xds.TLSProfile{xds.TLSIntermediate, xds.TLSModern} {
		r.Settings.TLSProfile = profile
		r.Set(t, config)
		for _, c := range cases {
			c.offer.CurvePreferences = c.curves
			var got string
			for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				got = refused
				if state, err := handshake(r, c.offer); err == nil {
					got = tls.VersionName(state.Version) + " " + state.CurveID.String()
				} else if !strings.Contains(err.Error(), "tls: ") {
					got = err.Error()
				}
				if got == c.want[profile] {
					break
				}
			}
			if got != c.want[profile] {
				t.Errorf("%s, %s: %s, want %s", profile, c.name, got, c.want[profile])
			}
		}
	}
}
