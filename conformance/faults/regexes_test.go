package faults

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/internal/envoy/envoytest"
	"hythe.dev/hythe/internal/kube"
)

// atoms are all that Go's expressions are made of, alone.
func atoms() []string {
	out := []string{"a", ".", "[a-z]", "[^/]", `\d`, `\D`, `\s`, `\S`, `\w`, `\W`, `\b`, `\B`, `\A`, `\z`, "^", "$", `\a`, `\f`, `\t`, `\n`, `\r`, `\v`, `\C`, `\Q.*\E`, `\Q`, `\E`,
		`\x41`, `\x{41}`, `\x{10FFFF}`, `\x{e9}`, `\101`, `\07`, `\0`, `\1`, `\pL`, `\PL`, `\p{^Greek}`, `\P{^Greek}`, `[\p{L}\d-]`, `[^\p{L}]`, `[\D\d]`, `[^\D\d]`, `[[:word:]]`, `[[:^word:]]`,
		"[]a]", "[^]a]", "[a-]", "[-a]", "[a-a]", "[z-a]", "[]", "[^]", `[\]]`, `[\x00-\x{10FFFF}]`, `[^\x00-\x{10FFFF}]`, "(?i)a", "(?i:é)", "(?s).", "(?m)^", "(?U)a+", "(?i-s:k)", "(?-i:K)", "(?^:a)", "(?ims-U:a)",
		"(?P<n>a)", "(?<n>a)", "(?P<n>a)(?P<n>b)", "(?P<é>a)", "(?P=n)", "(?:)", "()", "(|a)", "(a|)", "a||b", "(?=a)", "(?!a)", "(?<=a)", "(?>a)", "(?#c)", `\Z`, `\G`, `\K`, `\R`, `\X`, `\h`, `\N`, `\cA`, `\e`, `\u0041`,
		"{", "}", "{,5}", "a{,5}", "a{0}", "a{1001}", "a{2,1}", "]", ")", "(", "[", "|", "\\", "&&", "[a&&b]", "[[a]]", "[[.a.]]", "[[=a=]]", "~", "%", "%2f", `"`, "'", "`", "#", ";", "<", ">", "@", "é", "\u212a", "ſ"}
	for _, class := range []string{"alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit", "none"} {
		out = append(out, "[[:"+class+":]]", "[[:^"+class+":]]", "[^[:"+class+":]/]")
	}
	for _, tables := range []map[string]*unicode.RangeTable{unicode.Categories, unicode.Scripts, unicode.Properties} {
		for _, name := range slices.Sorted(maps.Keys(tables)) {
			out = append(out, `\p{`+name+`}`, `\P{`+name+`}`, `[^\p{`+name+`}]`)
		}
	}
	for alias := range unicode.CategoryAliases {
		out = append(out, `\p{`+alias+`}`, `\p{`+strings.ToLower(alias)+`}`, `\P{`+alias+`}`)
	}
	return append(out, `\p{Any}`, `\p{ASCII}`, `\p{Assigned}`, `\p{LC}`, `\p{Cn}`, `\p{any}`)
}

// expressions are all atoms, with all repetitions, and random ones of several.
func expressions() []string {
	random := rand.New(rand.NewPCG(21, 23))
	single := atoms()
	repeats := []string{"*", "+", "?", "*?", "+?", "??", "{2}", "{2,}", "{0,3}?", "**", "+*", "{2}{3}", "{10}{10}", "{100}", "{400}", "{999}", "{1000}", "*{2}", "++"}
	var out []string
	for _, a := range single {
		out = append(out, "/"+a, "/x("+a+")/y", "/"+a+repeats[random.IntN(len(repeats))])
	}
	for _, r := range repeats {
		for _, a := range []string{"a", ".", "[^/]", "(a|b)", "(?:a*)", "(.*)", `\pL`, `\W`} {
			out = append(out, "/"+a+r)
		}
	}
	for range 2000 {
		text := "/"
		for range 1 + random.IntN(6) {
			text += single[random.IntN(len(single))]
			switch random.IntN(4) {
			case 0:
				text += repeats[random.IntN(len(repeats))]
			case 1:
				text = "/(" + strings.TrimPrefix(text, "/") + ")"
			case 2:
				text += "|/b"
			}
		}
		out = append(out, text)
	}
	return out
}

// TestRegexes offers Envoy all expressions that Go's syntax allows and others: none that the gateway takes is refused by RE2,
// and none of them changes what other hosts get.
func TestRegexes(t *testing.T) {
	r, p := envoytest.New(t, nil), newPod(t)
	all := expressions()
	var manifests strings.Builder
	manifests.WriteString(application)
	for i, text := range all {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&manifests, `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: r%d
  namespace: default
  annotations: {nginx.ingress.kubernetes.io/use-regex: "true", nginx.ingress.kubernetes.io/rewrite-target: "/$1/$2"}
spec: {rules: [{host: r%d.test, http: {paths: [{path: %s, pathType: ImplementationSpecific, backend: {service: {name: app, port: {number: 80}}}}]}}]}
`, i, i, quoted)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifests.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	snapshot, err := kube.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	chain, key := envoytest.Pair(t, "any")
	config, _ := gateway.Build(snapshot, gateway.Settings{WithoutClass: true, DefaultChain: chain, DefaultKey: key})
	taken, compiled := 0, 0
	for _, h := range config.Hosts {
		for _, route := range h.Routes {
			if route.Match == gateway.Regex {
				taken++
			}
		}
	}
	for _, text := range all {
		if _, err := regexp.Compile(text); err == nil {
			compiled++
		}
	}
	good := world(t, p)
	config.Hosts = append(config.Hosts, good.Hosts...)
	config.Backends = append(config.Backends, good.Backends...)
	config.EndpointSets = append(config.EndpointSets, good.EndpointSets...)
	_, status := r.Set(t, config)
	for _, bad := range status.Refused {
		var n int
		_, _ = fmt.Sscanf(bad.Name, "all/r%d.test", &n)
		t.Errorf("Envoy refuses %s (%q): %s", bad.Name, all[n], bad.Reason)
	}
	until(t, "another host is served", func() bool {
		status, _, err := get(r.Settings.HTTP, "a.test", "/")
		return err == nil && status == 200
	})
	t.Logf("%d expressions, Go compiles %d, the gateway takes %d", len(all), compiled, taken)
	if taken < 500 {
		t.Errorf("the gateway takes %d of %d expressions only", taken, len(all))
	}
}
