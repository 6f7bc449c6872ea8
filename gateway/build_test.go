package gateway_test

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
)

// now is the time at which test certificates are checked.
var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// TestBuild reads testdata/*.txtar: Kubernetes manifests in *.yaml, then "want", the text form of the Config,
// the Problems and the skipped Ingresses. Optional "settings" has one word in each line. CERT(names) and
// KEY(names) in a manifest stand for a key pair made for these names; see pairs_test.go.
func TestBuild(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, archive *golden.Archive) {
		snapshot, settings := input(t, archive)
		checkBuild(t, snapshot, settings)
		archive.Want(t, "want", describe(snapshot, settings))
	})
}

// describe is everything that a person sees of a Build.
func describe(s *model.Snapshot, settings gateway.Settings) string {
	var b strings.Builder
	config, problems := gateway.Build(s, settings)
	b.WriteString(config.String())
	for _, p := range append(problems, s.Problems...) {
		b.WriteString("problem " + p.String() + "\n")
	}
	for _, skipped := range gateway.Skipped(s, settings) {
		b.WriteString("skipped " + skipped.Ingress.String() + ": " + skipped.Reason + "\n")
	}
	return b.String()
}

var pairReference = regexp.MustCompile(`(CERT|KEY)\(([^)]*)\)`)

func input(t *testing.T, archive *golden.Archive) (*model.Snapshot, gateway.Settings) {
	dir := t.TempDir()
	settings := gateway.Settings{Now: now, OwnPorts: model.DefaultOwnPorts()}
	for _, file := range archive.Files {
		switch {
		case file.Name == "settings":
			settings = parseSettings(t, settings, string(file.Data))
		case strings.HasSuffix(file.Name, ".yaml"):
			data := pairReference.ReplaceAllFunc(file.Data, func(ref []byte) []byte {
				match := pairReference.FindSubmatch(ref)
				chain, key := pair(t, string(match[2]))
				if string(match[1]) == "KEY" {
					chain = key
				}
				return []byte(base64.StdEncoding.EncodeToString(chain))
			})
			if err := os.WriteFile(filepath.Join(dir, file.Name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	snapshot, err := kube.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot, settings
}

func parseSettings(t *testing.T, s gateway.Settings, text string) gateway.Settings {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "class":
			s.Classes = append(s.Classes, value)
		case "catch-all":
			s.CatchAllNamespaces = append(s.CatchAllNamespaces, value)
		case "local":
			s.LocalAddresses = append(s.LocalAddresses, netip.MustParseAddr(value))
		case "without-class":
			s.WithoutClass = true
		case "default-certificate":
			namespace, secret, _ := strings.Cut(value, "/")
			s.DefaultCertificate = model.Key{Namespace: namespace, Name: secret}
		case "tcp-services":
			namespace, configMap, _ := strings.Cut(value, "/")
			s.TCPServices = model.Key{Namespace: namespace, Name: configMap}
		case "udp-services":
			namespace, configMap, _ := strings.Cut(value, "/")
			s.UDPServices = model.Key{Namespace: namespace, Name: configMap}
		default:
			t.Fatalf("unknown setting %q", line)
		}
	}
	return s
}

// checkBuild checks what holds for every Config.
func checkBuild(t *testing.T, s *model.Snapshot, settings gateway.Settings) {
	t.Helper()
	config, problems := gateway.Build(s, settings)
	var cache gateway.Cache
	for range 2 {
		again, problemsAgain := cache.Build(s, settings)
		if !reflect.DeepEqual(config, again) || !reflect.DeepEqual(problems, problemsAgain) {
			t.Errorf("two Builds of one snapshot differ:\n%s\n%s", config, again)
		}
	}
	if err := gateway.Check(config); err != nil {
		t.Errorf("%v in\n%s", err, config)
	}
	for _, secret := range s.Secrets.All() {
		key := bytes.TrimSpace(secret.Data["tls.key"])
		for _, p := range problems {
			if len(key) > 16 && strings.Contains(p.Message, string(key[len(key)/2:len(key)/2+16])) {
				t.Errorf("a Problem quotes a private key: %s", p.Reason)
			}
		}
	}
}
