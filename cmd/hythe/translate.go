package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/xds"
)

const translateLong = `Translate reads Kubernetes manifests and prints what the gateway would serve, without a cluster.

The table on standard output has a line for each path, in the order in which paths are tried: those of a host
stand together, and a wildcard or "*" host serves only names that no other line names. A BACKEND of digits is a
status that the gateway answers itself. CERTIFICATE is the Secret that clients of the host get, with "+308" where
plain http is redirected to https.

Problems (what was asked for and is not done) and Ingresses of other classes are listed on standard error.

With --from nginx it says of each object written for ingress-nginx instead what is kept, what is changed (has its nearest or
its safe meaning), what is not needed, what is refused (has no effect), and which paths are closed (answer 503) rather than
open. Ingresses of class nginx are taken then, too.

The exit code is 0 if all input could be read, 1 if not, and 2 with --strict if there are Problems, or with --from
something is refused or closed.`

const translateExample = `  # What would this folder serve?
  hythe translate -f manifests/

  # An Ingress of ingress-nginx, whose Services live elsewhere
  kubectl get ingress -A -o yaml | hythe translate -f - --class nginx --assume-services

  # What becomes of everything that ingress-nginx serves today?
  kubectl get ingress,services,endpointslices -A -o yaml > all.yaml && hythe translate --from nginx all.yaml

  # In CI: fail on any Problem
  hythe translate -f manifests/ --strict

  # The same for programs, and as Envoy gets it (private keys are left out)
  hythe translate -f manifests/ -o json
  hythe translate -f manifests/ -o envoy`

// translateOptions are the flags of hythe translate.
type translateOptions struct {
	files          []string
	from           string
	settings       gateway.Settings
	assumeServices bool
	output         string
	strict         bool
}

func newTranslateCommand() *cobra.Command {
	var o translateOptions
	cmd := &cobra.Command{
		Use:     "translate [--from nginx] FILE...",
		Short:   "Show what manifests would serve, offline",
		Long:    translateLong,
		Example: translateExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.files = append(o.files, args...); len(o.files) == 0 {
				return errors.New("name manifests, a folder of manifests, or - for standard input")
			}
			return o.run(cmd.OutOrStdout(), cmd.ErrOrStderr(), time.Now())
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "manifest, folder of manifests, or - for standard input; may be repeated")
	f.StringArrayVar(&o.settings.Classes, "class", nil, "take Ingresses of this class, whatever IngressClass objects say; may be repeated")
	f.BoolVar(&o.settings.WithoutClass, "without-class", false, "take Ingresses that name no class")
	f.StringArrayVar(&o.settings.CatchAllNamespaces, "catch-all-namespace", nil, "namespace whose Ingresses may serve hosts that nobody names; * for all; may be repeated")
	f.BoolVar(&o.assumeServices, "assume-services", false, "take Services that are named but not in the input as existing")
	f.StringVar(&o.from, "from", "", "say what becomes of manifests that were written for another controller: nginx")
	f.StringVarP(&o.output, "output", "o", "text", "text, json, yaml or envoy")
	f.BoolVar(&o.strict, "strict", false, "exit with 2 if there are Problems")
	_ = cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]cobra.Completion{"nginx"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]cobra.Completion{"text", "json", "yaml", "envoy"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// run translates. Certificates are checked at the time now.
func (o *translateOptions) run(stdout, stderr io.Writer, now time.Time) error {
	switch {
	case o.from != "" && o.from != "nginx":
		return fmt.Errorf("unknown controller %q: --from knows nginx", o.from)
	case o.from != "" && o.output == "envoy":
		return errors.New("--from says what becomes of manifests, and has no output envoy: leave one of both out")
	case o.from != "":
		o.settings.Classes = append(o.settings.Classes, "nginx")
	}
	snapshot, err := kube.Load(o.files...)
	if err != nil {
		return err
	}
	o.settings.Now, o.settings.OwnPorts = now, model.DefaultOwnPorts()
	skipped := gateway.Skipped(snapshot, o.settings)
	if o.assumeServices {
		snapshot = assumeServices(snapshot)
	}
	config, problems := gateway.Build(snapshot, o.settings)
	problems = append(problems, snapshot.Problems...)
	if o.from != "" {
		return o.runFrom(stdout, stderr, migrate(snapshot, model.SortProblems(problems), skipped), problems)
	}
	if o.output == "envoy" {
		resources, more := xds.Build(config, xds.Settings{})
		problems = append(problems, more...)
		err = writeEnvoy(stdout, &resources)
	} else {
		t := translate(config, problems, skipped)
		err = o.write(stdout, t, func() error { return writeTable(stdout, t.Routes) })
	}
	if err != nil {
		return err
	}
	problems = model.SortProblems(problems)
	if snapshot.Ingresses.Len() == 0 {
		fmt.Fprintln(stderr, "The input holds no Ingress (networking.k8s.io/v1) that could be read.")
	}
	writeNotes(stderr, problems, skipped)
	return o.verdict(problems)
}

// runFrom prints what becomes of manifests.
func (o *translateOptions) runFrom(stdout, stderr io.Writer, m migration, problems []model.Problem) error {
	if err := o.write(stdout, m, func() error { return writeMigration(stdout, m) }); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s\n", m.summary())
	for _, s := range m.Skipped {
		fmt.Fprintf(stderr, "Left out: Ingress %s: %s\n", s.Ingress, s.Reason)
	}
	if err := o.verdict(problems); err != nil {
		return err
	}
	if o.strict && m.lost() {
		return exitError{code: 2}
	}
	return nil
}

// write prints a translation in the form that was asked for.
func (o *translateOptions) write(w io.Writer, t any, asText func() error) error {
	switch o.output {
	case "text":
		return asText()
	case "json":
		return writeJSON(w, t)
	case "yaml":
		return writeYAML(w, t)
	}
	return fmt.Errorf("unknown output %q: use text, json, yaml or envoy", o.output)
}

// verdict turns Problems into the exit code.
func (o *translateOptions) verdict(problems []model.Problem) error {
	for _, p := range problems {
		if p.Object.Kind == "File" {
			return exitError{code: 1}
		}
	}
	if o.strict && len(problems) > 0 {
		return exitError{code: 2}
	}
	return nil
}

// A translation is the result as programs read it.
type translation struct {
	Routes   []translatedRoute          `json:"routes"`
	Problems []v1alpha1.ReportedProblem `json:"problems"`
	Skipped  []translatedSkip           `json:"skipped"`
}

// A translatedSkip is an Ingress of another class.
type translatedSkip struct {
	Ingress string `json:"ingress"`
	Class   string `json:"class,omitempty"`
	Reason  string `json:"reason"`
}

// A translatedRoute is a line of the table.
type translatedRoute struct {
	Host  string `json:"host"`
	Path  string `json:"path"`
	Match string `json:"match"`
	// Backend is "namespace/service:port"; when empty, Status is answered.
	Backend   string   `json:"backend,omitempty"`
	Status    uint32   `json:"status,omitempty"`
	Redirect  string   `json:"redirect,omitempty"`
	Endpoints []string `json:"endpoints,omitempty"`
	// Certificate is "namespace/name" of a Secret, or "default".
	Certificate   string `json:"certificate"`
	RedirectHTTPS bool   `json:"redirectHTTPS"`
	Ingress       string `json:"ingress,omitempty"`
}

func translate(config gateway.Config, problems []model.Problem, skipped []gateway.SkippedIngress) translation {
	t := translation{
		Routes:   tableOf(config),
		Problems: model.Reported(model.SortProblems(slices.Clone(problems))),
		Skipped:  make([]translatedSkip, 0, len(skipped)),
	}
	for _, s := range skipped {
		t.Skipped = append(t.Skipped, translatedSkip{s.Ingress.String(), s.Class, s.Reason})
	}
	return t
}

// tableOf lists the routes of all hosts, the catch-all last, without the final 404s that nobody asked for.
func tableOf(config gateway.Config) []translatedRoute {
	endpoints := map[string][]string{}
	for _, set := range config.EndpointSets {
		for _, a := range set.Addresses {
			endpoints[set.Name] = append(endpoints[set.Name], a.String())
		}
	}
	sets := map[string]string{}
	for _, b := range config.Backends {
		sets[b.Name] = b.Endpoints
	}
	out, last := []translatedRoute{}, []translatedRoute{}
	for _, h := range config.Hosts {
		var lines []translatedRoute
		for _, r := range h.Routes {
			if r.Origin.Name == "" {
				continue
			}
			status, redirect := r.Status, ""
			if r.Policy != nil && r.Policy.Redirect.Code != 0 {
				status = uint32(r.Policy.Redirect.Code)
				_, redirect, _ = strings.Cut(r.Policy.Redirect.String(), ":")
			}
			lines = append(lines, translatedRoute{
				Host: h.Name, Path: r.Path, Match: r.Match.String(),
				Backend: r.Backend, Status: status, Redirect: redirect, Endpoints: endpoints[sets[r.Backend]],
				Certificate: h.Certificate, RedirectHTTPS: h.RedirectHTTPS && !r.Plain, Ingress: r.Origin.String(),
			})
		}
		if h.Name == gateway.CatchAll {
			last = lines
			continue
		}
		out = append(out, lines...)
	}
	return append(out, last...)
}

func writeTable(w io.Writer, routes []translatedRoute) error {
	if len(routes) == 0 {
		_, err := fmt.Fprintln(w, "Nothing would be served.")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "HOST\tPATH\tMATCH\tBACKEND\tENDPOINTS\tCERTIFICATE\tINGRESS")
	for _, r := range routes {
		backend, endpoints := r.Backend, strings.Join(r.Endpoints, ",")
		if backend == "" {
			backend, endpoints = strings.TrimSpace(strconv.Itoa(int(r.Status))+" "+r.Redirect), "-"
		} else if len(r.Endpoints) == 0 {
			endpoints = "none"
		}
		if len(r.Endpoints) > 3 {
			endpoints = fmt.Sprintf("%s + %d more", strings.Join(r.Endpoints[:2], ","), len(r.Endpoints)-2)
		}
		certificate := r.Certificate
		if r.RedirectHTTPS {
			certificate += " +308"
		}
		fmt.Fprintln(table, strings.Join([]string{r.Host, r.Path, r.Match, backend, endpoints, certificate, r.Ingress}, "\t"))
	}
	return table.Flush()
}

func writeJSON(w io.Writer, t any) error {
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err = fmt.Fprintln(w, string(data))
	return err
}

func writeYAML(w io.Writer, t any) error {
	data, err := yaml.Marshal(t)
	if err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	_, err = w.Write(data)
	return err
}

// writeEnvoy prints all resources as JSON, by kind in the order in which Envoy gets them, then by name.
func writeEnvoy(w io.Writer, resources *xds.Resources) error {
	var out bytes.Buffer
	separator := "{"
	for _, kind := range xds.Kinds() {
		fmt.Fprintf(&out, "%s%q: [", separator, kind.TypeURL()[strings.LastIndexByte(kind.TypeURL(), '.')+1:])
		separator = ","
		for i, name := range resources.Names(kind) {
			if i > 0 {
				out.WriteByte(',')
			}
			text, err := envoyJSON(kind, resources.Get(kind, name))
			if err != nil {
				return fmt.Errorf("print %s %s: %w", kind, name, err)
			}
			out.Write(text)
		}
		out.WriteByte(']')
	}
	out.WriteByte('}')
	// protojson varies its spacing on purpose; the output should be comparable.
	var indented bytes.Buffer
	if err := json.Indent(&indented, out.Bytes(), "", "  "); err != nil {
		return fmt.Errorf("print Envoy resources: %w", err)
	}
	_, err := fmt.Fprintln(w, indented.String())
	return err
}

// envoyJSON prints one resource, without private keys.
func envoyJSON(kind xds.Kind, resource *xds.Resource) ([]byte, error) {
	text, err := protojson.Marshal(resource.Body)
	if err != nil {
		return nil, err
	}
	var content map[string]any
	if err := json.Unmarshal(text, &content); err != nil {
		return nil, err
	}
	if certificate, ok := content["tlsCertificate"].(map[string]any); ok && kind == xds.Secret {
		certificate["privateKey"] = map[string]any{"inlineString": "[left out]"}
	}
	return json.Marshal(content) // sorts the fields
}

// writeNotes lists what is not served.
func writeNotes(w io.Writer, problems []model.Problem, skipped []gateway.SkippedIngress) {
	bold, plain := colours(w)
	if len(problems) > 0 {
		fmt.Fprintf(w, "%sProblems:%s\n", bold, plain)
		for _, p := range problems {
			fmt.Fprintf(w, "  %s: %s%s%s: %s\n", p.Object, bold, p.Reason, plain, p.Message)
		}
	}
	if len(skipped) > 0 {
		fmt.Fprintf(w, "%sNot Hythe's:%s\n", bold, plain)
		for _, s := range skipped {
			remedy := "--without-class"
			if s.Class != "" {
				remedy = "--class " + s.Class
			}
			fmt.Fprintf(w, "  Ingress %s: %s; to see it anyway: %s\n", s.Ingress, s.Reason, remedy)
		}
	}
}

// colours returns the codes for bold and plain text, empty unless w is a terminal and NO_COLOR is unset
// (no-color.org).
func colours(w io.Writer) (bold, plain string) {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return "", ""
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return "", ""
	}
	return "\x1b[1m", "\x1b[0m"
}

// assumeServices returns s with a Service for each that an Ingress names and that is not there.
func assumeServices(s *model.Snapshot) *model.Snapshot {
	out := *s
	assume := func(namespace string, b *networkingv1.IngressBackend) {
		if b == nil || b.Service == nil || b.Service.Name == "" {
			return
		}
		key := model.Key{Namespace: namespace, Name: b.Service.Name}
		if s.Services.Get(key) != nil {
			return // a wrong port of a Service that is there should show
		}
		service := &corev1.Service{}
		if known := out.Services.Get(key); known != nil {
			service = known
		}
		service.Namespace, service.Name = key.Namespace, key.Name
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{
			Name: b.Service.Port.Name, Port: b.Service.Port.Number, Protocol: corev1.ProtocolTCP,
		})
		out.Services = out.Services.With(key, service)
	}
	for key, ing := range s.Ingresses.All() {
		assume(key.Namespace, ing.Spec.DefaultBackend)
		for _, rule := range ing.Spec.Rules {
			if rule.HTTP == nil {
				continue
			}
			for i := range rule.HTTP.Paths {
				assume(key.Namespace, &rule.HTTP.Paths[i].Backend)
			}
		}
	}
	return &out
}
