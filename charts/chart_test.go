package charts_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/golden"
	"hythe.dev/hythe/internal/testenv"
)

// What scripts/kubernetes.sh builds: Helm 4, which the chart is made with, and Helm 3, which many have.
const helm4, helm3 = "helm", "helm3"

// helm finds the binary that scripts/kubernetes.sh builds, or one in PATH.
func helm(t *testing.T, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err == nil {
		path := filepath.Join(cache, "hythe", "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		if testenv.Strict() {
			t.Fatalf("needs %[1]s: run scripts/kubernetes.sh build %[1]s", name)
		}
		t.Skipf("needs %[1]s: run scripts/kubernetes.sh build %[1]s", name)
	}
	return path
}

// runHelm runs a Helm in a home of the test's own.
func runHelm(t *testing.T, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command(helm(t, name), args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_DATA_HOME="+home)
	var out, diagnosis bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnosis
	err = cmd.Run()
	return out.String(), diagnosis.String(), err
}

// chartDir is the chart, or a copy that lacks what conformance/guards takes out: Helm knows nothing of go build -overlay.
func chartDir(t *testing.T) string {
	t.Helper()
	_, overlay, ok := strings.Cut(os.Getenv("GOFLAGS"), "-overlay=")
	if !ok {
		return "hythe"
	}
	var files struct{ Replace map[string]string }
	data, err := os.ReadFile(strings.Fields(overlay)[0])
	if err == nil {
		err = json.Unmarshal(data, &files)
	}
	dir := filepath.Join(t.TempDir(), "hythe")
	here, err2 := os.Getwd()
	if err := errors.Join(err, err2, os.CopyFS(dir, os.DirFS("hythe"))); err != nil {
		t.Fatal(err)
	}
	for old, replacement := range files.Replace {
		name, err := filepath.Rel(filepath.Join(here, "hythe"), old)
		if err != nil || !filepath.IsLocal(name) {
			continue
		}
		if data, err = os.ReadFile(replacement); err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// template renders the chart with values; extra are further arguments.
func template(t *testing.T, values string, extra ...string) (string, error) {
	t.Helper()
	return templateBy(t, helm4, values, extra...)
}

func templateBy(t *testing.T, name, values string, extra ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"template", "hythe", chartDir(t), "--namespace", "hythe-system", "--values", file}, extra...)
	out, diagnosis, err := runHelm(t, name, args...)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, diagnosis)
	}
	return heartbeat.ReplaceAllString(out, "${1}RANDOM"), nil
}

var heartbeat = regexp.MustCompile(`(?m)^(  key: )[A-Za-z0-9+/=]{60}$`)

// TestTemplate renders each case of testdata: values.yaml, and what follows from it, either in full or as a summary.
func TestTemplate(t *testing.T) {
	golden.Archives(t, "testdata/*.txtar", func(t *testing.T, a *golden.Archive) {
		out, err := template(t, string(a.Data("values.yaml")))
		if err != nil {
			t.Fatal(err)
		}
		if a.Data("manifests.yaml") != nil {
			a.Want(t, "manifests.yaml", out)
			return
		}
		a.Want(t, "summary", summary(t, out))
	})
}

// TestHelm3 wants the same objects of both Helms, and the same refusals.
func TestHelm3(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "values.yaml" })
		var of [2]string
		for k, name := range []string{helm4, helm3} {
			out, err := templateBy(t, name, string(archive.Files[i].Data))
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for _, o := range objects(t, out) {
				data, err := yaml.Marshal(o.Object)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, string(data))
			}
			slices.Sort(list)
			of[k] = strings.Join(list, "---\n")
		}
		if of[0] != of[1] {
			t.Errorf("%s: %d bytes of Helm 4, and others of Helm 3 (%d):\n%s", file, len(of[0]), len(of[1]), of[1])
		}
	}
	for values, want := range map[string]string{
		"loadbalancer: {enabled: true}": "additional properties 'loadbalancer' not allowed",
		"overlay: {mtu: 500}":           "overlay.mtu: 500 is less than 576 bytes",
	} {
		if _, err := templateBy(t, helm3, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", values, err, want)
		}
	}
}

func objects(t *testing.T, manifests string) []unstructured.Unstructured {
	t.Helper()
	var out []unstructured.Unstructured
	for _, document := range regexp.MustCompile(`(?m)^---$`).Split(manifests, -1) {
		var o unstructured.Unstructured
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			t.Fatalf("%v in:\n%s", err, document)
		}
		if o.Object != nil {
			out = append(out, o)
		}
	}
	return out
}

// podTemplate is that of a workload, nil if o is none.
func podTemplate(t *testing.T, o unstructured.Unstructured) *corev1.PodTemplateSpec {
	t.Helper()
	var w struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if !slices.Contains([]string{"DaemonSet", "Deployment", "Job"}, o.GetKind()) {
		return nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &w); err != nil {
		t.Fatal(err)
	}
	return &w.Spec.Template
}

// summary names all objects, and of each workload what its containers run and may do.
func summary(t *testing.T, manifests string) string {
	t.Helper()
	list := objects(t, manifests)
	slices.SortStableFunc(list, func(a, b unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), cmp.Compare(a.GetName(), b.GetName()))
	})
	var b strings.Builder
	for _, o := range list {
		fmt.Fprintf(&b, "%s %s", o.GetKind(), o.GetName())
		if hook := o.GetAnnotations()["helm.sh/hook"]; hook != "" {
			fmt.Fprintf(&b, " (%s %s)", hook, o.GetAnnotations()["helm.sh/hook-weight"])
		}
		fmt.Fprintln(&b)
		if template := podTemplate(t, o); template != nil && o.GetAnnotations()["helm.sh/hook"] == "" {
			writePod(&b, template.Spec)
		}
	}
	return b.String()
}

func writePod(b *strings.Builder, pod corev1.PodSpec) {
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		fmt.Fprintf(b, "  %s: %s", c.Name, strings.Join(c.Command, " "))
		if add := c.SecurityContext.Capabilities.Add; len(add) > 0 {
			fmt.Fprintf(b, " %v", add)
		}
		fmt.Fprintln(b)
		for _, a := range c.Args {
			fmt.Fprintf(b, "    %s\n", a)
		}
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			fmt.Fprintf(b, "  host path %s\n", v.HostPath.Path)
		}
	}
}

func TestLint(t *testing.T) {
	for _, name := range []string{helm4, helm3} {
		if out, diagnosis, err := runHelm(t, name, "lint", "--strict", "hythe"); err != nil {
			t.Errorf("%s: %v\n%s%s", name, err, out, diagnosis)
		}
	}
}

// TestRefused has values that nobody can mean, and what people are told.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ values, want string }{
		"unknown key":        {"loadbalancer: {enabled: true}", "additional properties 'loadbalancer' not allowed"},
		"unknown inner key":  {"overlay: {mode: vxlan}", "at '/overlay': additional properties 'mode' not allowed"},
		"wrong type":         {"gateway: {enabled: sometimes}", "at '/gateway/enabled': got string, want boolean"},
		"quoted number":      {`overlay: {mtu: "1400"}`, "at '/overlay/mtu': got string, want integer"},
		"unknown preset":     {"cni: {preset: rke}", "at '/cni/preset': value must be one of 'kubeadm', 'k3s', 'microk8s', 'talos'"},
		"relative folder":    {"cni: {binDir: opt/cni}", "at '/cni/binDir': 'opt/cni' does not match"},
		"CIDR":               {"addressPools: [{name: edge, addresses: [192.0.2.0/33]}]", `addressPools[0] (edge): "192.0.2.0/33" is no address, range FIRST-LAST or CIDR`},
		"octet":              {"addressPools: [{name: edge, addresses: [192.0.2.256]}]", `"192.0.2.256" is no address`},
		"pool without any":   {"addressPools: [{name: edge, addresses: []}]", "at '/addressPools/0/addresses': minItems: got 0, want 1"},
		"pool without name":  {"addressPools: [{addresses: [192.0.2.1]}]", "at '/addressPools/0': missing property 'name'"},
		"API server by URL":  {"apiServers: ['https://192.0.2.11:6443']", `apiServers: "https://192.0.2.11:6443" is not HOST:PORT`},
		"API server by name": {"apiServers: [192.0.2.11]", `apiServers: "192.0.2.11" is not HOST:PORT`},
		"one API server":     {"apiServers: 192.0.2.11:6443", "at '/apiServers': got string, want array"},
		"small MTU":          {"overlay: {mtu: 500}", "overlay.mtu: 500 is less than 576 bytes"},
		"no controller":      {"controller: {enabled: false}", "loadBalancer.enabled needs controller.enabled"},
		"NodePort address":   {"serviceProxy: {nodePortAddresses: [192.0.2.1]}", "at '/serviceProxy/nodePortAddresses/0': '192.0.2.1' does not match"},
		"digest":             {"image: {digest: abc}", "at '/image/digest': 'abc' does not match pattern"},
		"no Envoy tag":       {"envoyImage: {tag: ''}", "at '/envoyImage/tag': minLength: got 0, want 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := template(t, c.values); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestAccepted are spellings that the checks must let through.
func TestAccepted(t *testing.T) {
	for _, values := range []string{
		"addressPools: [{name: edge, addresses: [192.0.2.1, '192.0.2.10 - 192.0.2.19', 192.0.2.32/28, '2001:db8::/120', '2001:db8::1-2001:db8::9', '::1']}]",
		"apiServers: ['192.0.2.11:6443', 'api.example.com:443', '[2001:db8::1]:6443']",
		"gateway: {service: {addresses: [192.0.2.1, '2001:db8::1']}, resources: {limits: {memory: 1Gi}}}",
		"global: {anything: 1}",
	} {
		if _, err := template(t, values); err != nil {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// TestExposedPorts has the Service's ports for those of the GatewayConfig, where Envoy listens for them.
func TestExposedPorts(t *testing.T) {
	out, err := template(t, `
ingressClass: {config: {listeners: {tcpServices: {"25": "mail/smtp:25", "15432": "db/postgres:psql"}, udpServices: {"53": "dns/dns:53"}, http3: {}}}}
gateway: {service: {extraPorts: [{name: git, port: 22, targetPort: 10022}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"- name: tcp-15432\n    port: 15432\n    protocol: TCP\n    targetPort: 15432\n",
		"- name: tcp-25\n    port: 25\n    protocol: TCP\n    targetPort: 10025\n",
		"- name: udp-53\n    port: 53\n    protocol: UDP\n    targetPort: 10053\n",
		"- {name: http3, port: 443, protocol: UDP, targetPort: 8443}\n",
		"- name: git\n    port: 22\n    targetPort: 10022\n",
		"udpServices:\n      \"53\": dns/dns:53\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
}

// TestEnvoyStays says what must not replace Envoy's pods: another version of everything else.
func TestEnvoyStays(t *testing.T) {
	of := func(values string) string {
		out, err := template(t, values)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects(t, out) {
			if o.GetKind() == "DaemonSet" && o.GetName() == "hythe-envoy" {
				data, err := yaml.Marshal(podTemplate(t, o))
				if err != nil {
					t.Fatal(err)
				}
				return string(data)
			}
		}
		t.Fatal("there is no DaemonSet hythe-envoy")
		return ""
	}
	first := of("{}")
	for _, values := range []string{
		"image: {tag: other}", "logLevel: debug", "apiServers: ['192.0.2.11:6443']", "gateway: {accessLog: true, extraArgs: [--opaque-secrets]}",
		"addressPools: [{name: edge, addresses: [192.0.2.1]}]", "overlay: {enabled: false}", "gateway: {resources: {limits: {memory: 1Gi}}}",
	} {
		if of(values) != first {
			t.Errorf("Envoy's pods are replaced by %s", values)
		}
	}
	if of("envoyImage: {tag: other}") == first {
		t.Error("Envoy's pods are not replaced by another Envoy")
	}
}

// TestKeysAreTheGateways: the gateway's cache holds the private keys of the cluster, and Envoy is what the internet talks to.
func TestKeysAreTheGateways(t *testing.T) {
	out, err := template(t, "{}")
	if err != nil {
		t.Fatal(err)
	}
	cache := ""
	mounts := map[string][]string{}
	for _, o := range objects(t, out) {
		if o.GetKind() != "DaemonSet" || o.GetName() != "hythe-gateway" && o.GetName() != "hythe-envoy" {
			continue
		}
		pod := podTemplate(t, o).Spec
		for _, v := range pod.Volumes {
			if v.HostPath != nil {
				mounts[o.GetName()] = append(mounts[o.GetName()], v.HostPath.Path)
			}
		}
		for _, arg := range pod.Containers[0].Args {
			if path, ok := strings.CutPrefix(arg, "--cache="); ok {
				cache = path
			}
		}
	}
	within := func(path string) bool { return cache == path || strings.HasPrefix(cache, path+"/") }
	if !strings.HasPrefix(cache, "/run/hythe/") || !slices.ContainsFunc(mounts["hythe-gateway"], within) {
		t.Errorf("the cache %q is not in memory, or not in a folder of the gateway's pod: %q", cache, mounts["hythe-gateway"])
	}
	if len(mounts["hythe-envoy"]) == 0 || slices.ContainsFunc(mounts["hythe-envoy"], within) {
		t.Errorf("Envoy's pod has %q, and the cache is %s", mounts["hythe-envoy"], cache)
	}
}

// TestDigest: a digest wins over a tag, in each container.
func TestDigest(t *testing.T) {
	ours, envoys := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	out, err := template(t, "{image: {tag: other, digest: '"+ours+"'}, envoyImage: {digest: '"+envoys+"'}}")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects(t, out) {
		template := podTemplate(t, o)
		if template == nil {
			continue
		}
		want := "hythe.dev/hythe@" + ours
		if o.GetName() == "hythe-envoy" {
			want = "hythe.dev/hythe-envoy@" + envoys
		}
		for _, c := range slices.Concat(template.Spec.InitContainers, template.Spec.Containers) {
			if c.Image != want {
				t.Errorf("%s %s: image %s, want %s", o.GetName(), c.Name, c.Image, want)
			}
		}
	}
}

// TestDrainEnds: the kubelet must not kill an Envoy before its drain is over.
func TestDrainEnds(t *testing.T) {
	out, err := template(t, "gateway: {drainSeconds: 300}")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects(t, out) {
		var d appsv1.DaemonSet
		if o.GetName() != "hythe-envoy" || runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d) != nil || d.Kind != "DaemonSet" {
			continue
		}
		pod := d.Spec.Template.Spec
		if got := strings.Join(pod.Containers[0].Lifecycle.PreStop.Exec.Command, " "); !strings.HasSuffix(got, "--deadline=300s") {
			t.Errorf("the hook is %s", got)
		}
		if *pod.TerminationGracePeriodSeconds <= 300 {
			t.Errorf("the pod is killed after %d s", *pod.TerminationGracePeriodSeconds)
		}
	}
}

// TestCleanupMounts: the cleanup finds what an overlay left that an upgrade switched off, and nothing of the host besides.
func TestCleanupMounts(t *testing.T) {
	for _, values := range []string{"overlay: {enabled: true}", "overlay: {enabled: false}"} {
		out, err := template(t, values, "--show-only", "templates/hook-cleanup.yaml")
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, o := range objects(t, out) {
			var d appsv1.DaemonSet
			if o.GetKind() != "DaemonSet" || runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d) != nil {
				continue
			}
			for _, v := range d.Spec.Template.Spec.Volumes {
				paths = append(paths, v.HostPath.Path)
			}
		}
		if want := []string{"/var/lib/hythe", "/run/hythe", "/proc/sys/net", "/opt/cni/bin", "/etc/cni/net.d"}; !slices.Equal(paths, want) {
			t.Errorf("%s: mounts are %q, want %q", values, paths, want)
		}
	}
}
