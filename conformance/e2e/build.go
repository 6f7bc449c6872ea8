package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// parseList reads the output of e2e.test --list-tests: a heading, then lines of place, colon and name.
func parseList(out string, focus, skip *regexp.Regexp) []string {
	var names []string
	for line := range strings.Lines(out) {
		place, name, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || strings.Contains(place, " ") {
			continue
		}
		if focus.MatchString(name) && (skip == nil || !skip.MatchString(name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// missing are the tests without a result for this run; with again, also those that failed.
func missing(tests []string, results []result, r run, again bool) []string {
	newest := latest(results, r.covers)
	return slices.DeleteFunc(slices.Clone(tests), func(name string) bool {
		got, ok := newest[name]
		return ok && (got.Result != failed || !again)
	})
}

// latest has the newest result of each test.
func latest(results []result, keep func(result) bool) map[string]result {
	out := make(map[string]result)
	for _, r := range results {
		if keep(r) {
			out[r.Test] = r
		}
	}
	return out
}

// A spec is a test in ginkgo's report.
type spec struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	Failure                 struct{ Message string }
}

func (s spec) name() string {
	return strings.Join(append(slices.Clone(s.ContainerHierarchyTexts), s.LeafNodeText), " ")
}

var errNoResult = errors.New("the report does not have the test")

// parseReport finds one test in ginkgo's report. An error says that the test did not run, because of what
// comes before all tests, and that is no result.
func parseReport(in io.Reader, test string) (end, message string, err error) {
	var suites []struct{ SpecReports []spec }
	if err := json.NewDecoder(in).Decode(&suites); err != nil {
		return "", "", fmt.Errorf("read report: %w", err)
	}
	err = errNoResult
	for _, suite := range suites {
		for _, s := range suite.SpecReports {
			switch {
			case s.LeafNodeType == "It" && s.name() == test:
				end, message, err = endOf(s.State), firstLine(s.Failure.Message), nil
			case strings.HasSuffix(s.LeafNodeType, "BeforeSuite") && endOf(s.State) == failed:
				return "", "", fmt.Errorf("prepare tests: %s", firstLine(s.Failure.Message))
			}
		}
	}
	return end, message, err
}

// endOf takes ginkgo's other states (panicked, timedout, interrupted, aborted) as failures.
func endOf(state string) string {
	if state == passed || state == skipped {
		return state
	}
	return failed
}

// longest is how much of a message is kept.
const longest = 200

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	line = strings.TrimSuffix(strings.TrimSpace(line), ":")
	if runes := []rune(line); len(runes) > longest {
		line = string(runes[:longest]) + "…"
	}
	return line
}

// A column of the table.
type column struct {
	title   string
	flavour string
	// footer of the message's list.
	results map[string]result
}

// titles are those of the tables.
func titles() map[string]string {
	return map[string]string{
		setConformance:  "Kubernetes' own tests",
		setNetwork:      "Kubernetes' other tests of the network",
		setLoadBalancer: "Kubernetes' tests of LoadBalancer Services",
		setDualStack:    "Kubernetes' tests of both families (make cluster DUAL=1)",
	}
}

// table shows the newest result of each test of a set, and flavour.
func table(results []result, rules rules, set, hythe, peer string) string {
	columns := []column{{title: "Hythe", flavour: hythe}, {title: "kube-proxy and reference plugins", flavour: peer}}
	tests := make(map[string]bool)
	for i := range columns {
		c := &columns[i]
		c.results = latest(results, func(r result) bool { return r.Flavour == c.flavour && rules.set(r.Test) == set })
		for name := range c.results {
			tests[name] = true
		}
	}
	command := "make conformance"
	if set != setConformance {
		command += " SET=" + set
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", titles()[set])
	fmt.Fprintf(&b, "Written by `%s`: `e2e.test` from outside of the cluster, both columns on the same rig.\n\n", command)
	for _, c := range columns {
		fmt.Fprintf(&b, "- %s\n", c.summary())
	}
	fmt.Fprintf(&b, "\n| test | %s | %s |\n|---|---|---|\n", columns[0].title, columns[1].title)
	names := slices.Sorted(maps.Keys(tests))
	for _, name := range names {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", escape(name), columns[0].cell(name), columns[1].cell(name))
	}
	for _, c := range columns {
		b.WriteString(c.reasons(names, rules))
	}
	if set == setNetwork {
		b.WriteString(leftOutText(rules))
	}
	return b.String()
}

// leftOutText lists the tests of [sig-network] that are in no set.
func leftOutText(rules rules) string {
	var b strings.Builder
	b.WriteString("\n## Not run, and why\n\n")
	for _, r := range rules {
		if r.word == leftOut {
			fmt.Fprintf(&b, "- `%s`: %s\n", r.matches, r.reason)
		}
	}
	return b.String()
}

// escape keeps a name from being read as Markdown.
func escape(text string) string {
	return strings.NewReplacer("|", `\|`, "[", `\[`, "]", `\]`, "<", "&lt;", "*", `\*`, "_", `\_`).Replace(text)
}

func (c column) cell(name string) string {
	r, ok := c.results[name]
	if !ok {
		return "not run"
	}
	if r.Result == failed {
		return "**failed**"
	}
	return r.Result
}

// summary counts, and says of which versions the results are.
func (c column) summary() string {
	if len(c.results) == 0 {
		return c.title + ": not run yet"
	}
	count := make(map[string]int)
	versions := make(map[string]bool)
	for _, r := range c.results {
		count[r.Result]++
		versions[strings.TrimSpace(cmp.Or(r.Commit, "")+" on Kubernetes "+r.Kubernetes)] = true
	}
	return fmt.Sprintf("%s: %d passed, %d failed, %d skipped (%s)", c.title,
		count[passed], count[failed], count[skipped], strings.Join(slices.Sorted(maps.Keys(versions)), ", "))
}

// reasons lists what is known of the tests that did not pass.
func (c column) reasons(names []string, rules rules) string {
	var b strings.Builder
	for _, name := range names {
		r, ok := c.results[name]
		if !ok || r.Result == passed {
			continue
		}
		fmt.Fprintf(&b, "- %s (%s): %s\n", escape(name), r.Result, escape(cmp.Or(r.Message, "no message")))
		if why := rules.known(name); why != "" {
			fmt.Fprintf(&b, "  %s\n", why)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("\n## %s: what did not pass\n\n%s", c.title, b.String())
}
