package services

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Table is what both programs did, for people: the counts, then each difference under its decision, then what nobody decided.
func Table(results []Result, decisions map[string]string, commit string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Services, beside kube-proxy\n\nWritten by `make services` at %s: %s\n\n%s", commit,
		"one suite of cases as real packets against Hythe and kube-proxy 1.36.3 in nftables mode, see conformance/services.", counts(results))
	byDecision := map[string][]Result{}
	var undecided []Result
	for _, r := range results {
		for _, program := range []string{Hythe, KubeProxy} {
			if d, ok := r.Ask.Decided[program]; ok {
				byDecision[d.Decision] = append(byDecision[d.Decision], r)
			}
		}
		if !r.Met(Hythe) || !r.Met(KubeProxy) {
			undecided = append(undecided, r)
		}
	}
	fmt.Fprintf(&b, "\n## Differences that nobody decided: %d\n\n", len(undecided))
	writeTable(&b, undecided)
	for _, name := range slices.Sorted(maps.Keys(byDecision)) {
		fmt.Fprintf(&b, "\n## %s: %d\n\n%s\n\n", name, len(byDecision[name]), decisions[name])
		writeTable(&b, byDecision[name])
	}
	return b.String()
}

// counts is a line for each file.
func counts(results []Result) string {
	type count struct{ all, hythe, kubeProxy, same int }
	byFile, total := map[string]count{}, count{}
	add := func(c count, r Result) count {
		c.all++
		for program, n := range map[string]*int{Hythe: &c.hythe, KubeProxy: &c.kubeProxy} {
			if r.Ask.Want.Met(r.Seen[program]) {
				*n++
			}
		}
		if r.Ask.Want.Met(r.Seen[Hythe]) == r.Ask.Want.Met(r.Seen[KubeProxy]) {
			c.same++
		}
		return c
	}
	for _, r := range results {
		byFile[r.Ask.File] = add(byFile[r.Ask.File], r)
		total = add(total, r)
	}
	var b strings.Builder
	line := func(name string, c count) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", name, c.all, c.hythe, c.kubeProxy, c.same)
	}
	fmt.Fprintln(&b, "| cases, family | packets | Hythe as expected | kube-proxy as expected | both alike |\n|---|---|---|---|---|")
	for _, name := range slices.Sorted(maps.Keys(byFile)) {
		line(name, byFile[name])
	}
	line("all", total)
	return b.String()
}

func writeTable(b *strings.Builder, results []Result) {
	if len(results) == 0 {
		return
	}
	fmt.Fprintln(b, "| case | packet | expected | Hythe | kube-proxy |\n|---|---|---|---|---|")
	for _, r := range results {
		fmt.Fprintf(b, "| %s step %d | %s | %s | %s | %s |\n", r.Ask.File, r.Ask.Step, r.Ask, r.Ask.Want, shown(r, Hythe), shown(r, KubeProxy))
	}
}

// shown is what a program did; of several answers of which one is right, which one it was says nothing.
func shown(r Result, program string) string {
	if r.Met(program) {
		return r.Ask.For(program).String()
	}
	return strings.Join(r.Seen[program], " ")
}
