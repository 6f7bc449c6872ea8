package gateway_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/testenv"
)

// TestKeysAsEnvoy wants exactly those key pairs to be refused here that Envoy would refuse.
func TestKeysAsEnvoy(t *testing.T) {
	envoy := testenv.Envoy(t)
	for _, kind := range []string{"p256", "p384", "p521", "rsa2048", "rsa1024", "p224", "ed25519", "unusual PEM", "rubbish in the chain"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			chain, key := pair(t, strings.Fields(kind)[0]+" a.example.com")
			switch kind {
			case "unusual PEM":
				chain = bytes.ReplaceAll(append([]byte("subject=test\n"), chain...), []byte("\n"), []byte("\r\n"))
				key = append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), key...)
			case "rubbish in the chain":
				chain = append(bytes.Clone(chain), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"...)
			}
			config, problems := gateway.Build(tlsSnapshot(chain, key), gateway.Settings{WithoutClass: true, Now: now})
			served := config.Hosts[1].Certificate == "shop/tls"
			if served {
				chain, key = config.Certificates[1].Chain, config.Certificates[1].Key
			}
			out, err := validate(t, envoy, chain, key)
			if accepted := err == nil; accepted != served {
				t.Errorf("Envoy accepts: %v, Build serves: %v\n%v\n%s", accepted, served, problems, out)
			}
		})
	}
}

// validate asks Envoy whether it can serve a key pair.
func validate(t *testing.T, envoy string, chain, key []byte) ([]byte, error) {
	t.Helper()
	text := func(b []byte) string {
		quoted, err := json.Marshal(string(b))
		if err != nil {
			t.Fatal(err)
		}
		return string(quoted)
	}
	bootstrap := fmt.Sprintf(`{"static_resources": {"listeners": [{
		"name": "https", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
		"filter_chains": [{
			"filters": [{"name": "echo", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}}],
			"transport_socket": {"name": "tls", "typed_config": {
				"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
				"common_tls_context": {"tls_certificates": [{
					"certificate_chain": {"inline_string": %s}, "private_key": {"inline_string": %s}}]}}}}]}]}}`, text(chain), text(key))
	path := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(path, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), envoy, "--mode", "validate", "-c", path, "--log-level", "error").CombinedOutput()
}
