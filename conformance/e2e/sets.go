package main

import (
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

//go:embed sets.txt
var setsText string

// Words that begin a line of sets.txt, beside names of sets.
const (
	leftOut = "-"
	alone   = "alone"
	known   = "known"
)

// The sets, in the order of their tables.
const (
	setConformance  = "conformance"
	setNetwork      = "network"
	setLoadBalancer = "loadbalancer"
	setDualStack    = "dualstack"
)

func setNames() []string { return []string{setConformance, setNetwork, setLoadBalancer, setDualStack} }

// A rule is a line of sets.txt.
type rule struct {
	word    string
	matches *regexp.Regexp
	reason  string
}

// rules are all lines of sets.txt, in their order.
type rules []rule

// parseRules reads the text of sets.txt: lines of a word and an expression, each with indented lines of a reason below.
func parseRules(text string) (rules, error) {
	var out rules
	for n, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(line, "#"):
			continue
		case line[0] == '\t' && len(out) > 0:
			last := &out[len(out)-1]
			last.reason = strings.TrimSpace(last.reason + " " + trimmed)
			continue
		}
		word, expression, _ := strings.Cut(trimmed, " ")
		if !slices.Contains(append(setNames(), leftOut, alone, known), word) {
			return nil, fmt.Errorf("sets.txt, line %d: %q is no set", n+1, word)
		}
		matches, err := regexp.Compile(strings.TrimSpace(expression))
		if err != nil {
			return nil, fmt.Errorf("sets.txt, line %d: %w", n+1, err)
		}
		out = append(out, rule{word: word, matches: matches})
	}
	for _, r := range out {
		if isSet := slices.Contains(setNames(), r.word); isSet == (r.reason != "") {
			return nil, fmt.Errorf("sets.txt: the line %s %s has a reason: %t, want %t", r.word, r.matches, r.reason != "", !isSet)
		}
	}
	return out, nil
}

// set is the one that a test belongs to: leftOut, or empty when no line matches.
func (rs rules) set(test string) string {
	for _, r := range rs {
		if r.word != alone && r.word != known && r.matches.MatchString(test) {
			return r.word
		}
	}
	return ""
}

// alone says whether a test must be run with no other beside it.
func (rs rules) alone(test string) bool {
	return slices.ContainsFunc(rs, func(r rule) bool { return r.word == alone && r.matches.MatchString(test) })
}

// known is why a test fails or skips, empty if nobody wrote it down.
func (rs rules) known(test string) string {
	for _, r := range rs {
		if r.word == known && r.matches.MatchString(test) {
			return r.reason
		}
	}
	return ""
}

// of keeps the tests of one set.
func (rs rules) of(set string, tests []string) []string {
	return slices.DeleteFunc(slices.Clone(tests), func(test string) bool { return rs.set(test) != set })
}

// check tells of lines that match no test, or none that an earlier line has left to them.
func (rs rules) check(tests []string) error {
	var errs []error
	for i, r := range rs {
		mine := func(test string) bool { return r.matches.MatchString(test) }
		if r.word != alone && r.word != known {
			mine = func(test string) bool { return r.matches.MatchString(test) && rs[:i].set(test) == "" }
		}
		if !slices.ContainsFunc(tests, mine) {
			errs = append(errs, fmt.Errorf("sets.txt: %s %s matches no test", r.word, r.matches))
		}
	}
	return errors.Join(errs...)
}
