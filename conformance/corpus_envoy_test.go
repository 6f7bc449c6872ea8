package conformance

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/policy"
	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
)

const corpusHead = `# Manifests of other people, asked through Envoy

Each file is built as if its classes were Hythe's, and served by a real Envoy that refuses nothing of it. Each path of
each Ingress is asked for, with one below it, one beside it and one that nobody has, over http and, where there is TLS,
over https; where a password or an auth server decides who comes in, as nobody and as somebody who may. What must come
back (status, backend, redirect, certificate) is said by an oracle that reads the objects alone, and shares no code with
the gateway. Services and TLS Secrets that are named and not in the file are added, other Secrets and ConfigMaps are
not. 503 counts what a Problem explains, which names the annotation or the object. Objects whose name the file leaves
empty are given one: such a file has a star. A dash: it has no Ingress that can be read.

`

// A tally is a line of the table.
type tally struct {
	nameless                                 bool
	ingresses, hosts, asked, as, unavailable int
	problems                                 map[string]int
}

// TestCorpusEnvoy serves real manifests by a real Envoy, file by file, and compares all answers with what the oracle
// says. The table of it is in results; -update rewrites it.
func TestCorpusEnvoy(t *testing.T) {
	files := corpusFiles(t)
	r := newRig(t)
	var table strings.Builder
	table.WriteString(corpusHead)
	table.WriteString("| file | Ingresses | hosts | asked | as specified | 503 | Problems |\n|---|---|---|---|---|---|---|\n")
	total := tally{problems: map[string]int{}}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			line := r.corpusFile(t, file)
			table.WriteString(line.row(name))
			total.add(line)
		})
	}
	table.WriteString(total.row("all"))
	if !t.Failed() {
		golden.File(t, "results/corpus.md", table.String())
	}
}

func (t *tally) add(o tally) {
	t.ingresses += o.ingresses
	t.hosts += o.hosts
	t.asked += o.asked
	t.as += o.as
	t.unavailable += o.unavailable
	for reason, n := range o.problems {
		t.problems[reason] += n
	}
}

func (t *tally) row(name string) string {
	var problems []string
	for _, reason := range slices.Sorted(maps.Keys(t.problems)) {
		problems = append(problems, fmt.Sprintf("%s %d", reason, t.problems[reason]))
	}
	ingresses := strconv.Itoa(t.ingresses)
	if t.ingresses == 0 {
		ingresses = "-"
	}
	if t.nameless {
		name += " *"
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %s |\n", name, ingresses, t.hosts, t.asked, t.as, t.unavailable,
		strings.Join(problems, ", "))
}

// corpusFile asks for all of one file.
func (r *rig) corpusFile(t *testing.T, file string) tally {
	snapshot, nameless := load(t, file)
	complete(t, snapshot)
	config, problems := gateway.Build(snapshot, gateway.Settings{
		WithoutClass: true, Classes: classesOf(snapshot), CatchAllNamespaces: []string{"*"},
		OwnPorts: model.DefaultOwnPorts(), DefaultChain: r.defaultChain, DefaultKey: r.defaultKey, Now: time.Now(),
	})
	config.Backends = slices.Clone(config.Backends)
	for i := range config.Backends {
		config.Backends[i].Protocol = policy.HTTP // which the web servers speak; conformance/nginx has the others
	}
	config.EndpointSets = slices.Clone(config.EndpointSets)
	for i := range config.EndpointSets {
		set := &config.EndpointSets[i]
		service, _, _ := strings.Cut(set.Name, ":")
		namespace, name, _ := strings.Cut(service, "/")
		if len(set.Addresses) > 0 || snapshot.Endpoints.Get(model.Key{Namespace: namespace, Name: name}) == nil {
			set.Addresses = append(set.Addresses[:0:0], r.echo(set.Name))
		}
	}
	r.answerAuth(&config)
	r.set(t, config)

	line := tally{nameless: nameless, ingresses: snapshot.Ingresses.Len(), problems: map[string]int{}}
	for _, p := range slices.Concat(problems, snapshot.Problems) {
		line.problems[p.Reason]++
	}
	has := func(ingress model.Key, reason, text string) bool { return told(problems, ingress, reason, text) }
	o := newOracle(snapshot, refusedBy(problems))
	hosts := map[string]bool{}
	for _, key := range snapshot.Ingresses.SortedKeys() {
		ing := snapshot.Ingresses.Get(key)
		if isCanary(ing) {
			o.checkIdle(t, ing, problems)
			continue
		}
		asks := o.asks(ing)
		if len(asks) == 0 && !has(key, "", "") {
			t.Errorf("%s: nothing can be asked for, and no Problem says why", key)
		}
		for _, a := range asks {
			hosts[a.host] = true
			want := o.expect(a, r.Settings.HTTPSPort)
			r.compare(t, o, a, want)
			line.asked++
			line.as++
			if want.status == 503 {
				line.unavailable++
				if want.excuse != "" && !has(keyOf(want.ingress), want.excuse, want.names) {
					t.Errorf("%+v: it is 503, and no Problem %s of Ingress %s says why and names %q:\n%s", a, want.excuse, keyOf(want.ingress), want.names, problemText(problems))
				}
			}
		}
	}
	line.hosts = len(hosts)
	return line
}

// told says whether there is a Problem of an Ingress by a reason, "" for any, that has a text.
func told(problems []model.Problem, ingress model.Key, reason, text string) bool {
	return slices.ContainsFunc(problems, func(p model.Problem) bool {
		return p.Object == model.Ref("Ingress", ingress) && (reason == "" || p.Reason == reason) && strings.Contains(p.Message, text)
	})
}

// refusedBy is for newOracle: hosts and paths that Problems quote.
func refusedBy(problems []model.Problem) func(model.Key, string, string) bool {
	return func(ingress model.Key, reason, text string) bool {
		return told(problems, ingress, reason, strconv.Quote(text))
	}
}

// checkIdle wants a Problem for each path of a canary that takes nothing.
func (o *oracle) checkIdle(t *testing.T, ing *networkingv1.Ingress, problems []model.Problem) {
	t.Helper()
	for _, r := range ing.Spec.Rules {
		for _, p := range o.paths(ing, r) {
			if reason := o.idle(p); reason != "" && !p.told(problems, reason) {
				t.Errorf("%s: a canary takes nothing at %s, and no Problem %s says so:\n%s", keyOf(ing), p.place(), reason, problemText(problems))
			}
		}
	}
}

// answerAuth puts the rig's auth server in the place of those that Ingresses name.
func (r *rig) answerAuth(config *gateway.Config) {
	for _, entry := range config.Auth {
		if entry.Ask == nil {
			continue
		}
		for i := range entry.Ask.Targets {
			entry.Ask.Targets[i].Addresses = []netip.AddrPort{r.auth}
		}
	}
}

// load reads a file. Names that are left empty are filled in.
func load(t *testing.T, file string) (s *model.Snapshot, nameless bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "  name: ''\n")
	for i := range parts[1:] {
		parts[i] += fmt.Sprintf("  name: nameless-%d\n", i)
	}
	path := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(path, []byte(strings.Join(parts, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = kube.Load(path); err != nil {
		t.Fatal(err)
	}
	return s, len(parts) > 1
}

// compare asks, and asks again while a worker of Envoy has the configuration before.
func (r *rig) compare(t *testing.T, o *oracle, a ask, want answer) {
	t.Helper()
	lines := ""
	if a.known && want.ingress != nil {
		user, password := o.password(want.ingress)
		lines = letMeIn + ": yes\r\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
	}
	or := want.or
	want.excuse, want.names, want.or, want.ingress = "", "", "", nil
	var wrong string
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got, leaf, err := r.request(a, lines)
		got.location, _ = url.PathUnescape(got.location) // Envoy escapes what no URI may hold
		if or != "" && got.backend == or {
			got.backend = want.backend
		}
		wantLeaf := leaf
		if a.https {
			if wantLeaf = o.certificate(a.host); wantLeaf == nil {
				wantLeaf = leafOf(&corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{
					corev1.TLSCertKey: r.defaultChain, corev1.TLSPrivateKeyKey: r.defaultKey,
				}})
			}
		}
		switch {
		case err != nil:
			wrong = err.Error()
		case got != want:
			wrong = fmt.Sprintf("got %+v, want %+v", got, want)
		case !bytes.Equal(leaf, wantLeaf):
			wrong = "the certificate is another"
		default:
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%+v: %s", a, wrong)
			return
		}
	}
}

// complete adds Services and TLS Secrets that Ingresses name and that are not in the file.
func complete(t *testing.T, s *model.Snapshot) {
	named := map[model.Key]bool{}
	add := func(namespace string, b *networkingv1.IngressBackend) {
		if b == nil || !serviceNamed(b) {
			return
		}
		key := model.Key{Namespace: namespace, Name: b.Service.Name}
		service := s.Services.Get(key)
		if service != nil && !named[key] {
			return // a wrong port of a Service that is there should show
		}
		if service == nil {
			service = &corev1.Service{}
			s.Services, named[key] = s.Services.With(key, service), true
		}
		port := corev1.ServicePort{Name: b.Service.Port.Name, Port: b.Service.Port.Number, Protocol: corev1.ProtocolTCP}
		if !slices.Contains(service.Spec.Ports, port) {
			service.Spec.Ports = append(service.Spec.Ports, port)
		}
	}
	hosts := map[model.Key][]string{} // by missing Secret
	for _, key := range s.Ingresses.SortedKeys() {
		ing := s.Ingresses.Get(key)
		add(key.Namespace, ing.Spec.DefaultBackend)
		for _, r := range ing.Spec.Rules {
			for i := 0; r.HTTP != nil && i < len(r.HTTP.Paths); i++ {
				add(key.Namespace, &r.HTTP.Paths[i].Backend)
			}
		}
		for _, entry := range ing.Spec.TLS {
			secret := model.Key{Namespace: key.Namespace, Name: entry.SecretName}
			if entry.SecretName != "" && s.Secrets.Get(secret) == nil {
				hosts[secret] = append(hosts[secret], entry.Hosts...)
			}
		}
	}
	for secret, names := range hosts {
		chain, private := makePair(t, append([]string{secret.Name + ".invalid"}, names...)...)
		s.Secrets = s.Secrets.With(secret, &corev1.Secret{Type: corev1.SecretTypeTLS, Data: map[string][]byte{
			corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: private,
		}})
	}
}
