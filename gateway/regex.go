package gateway

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

const (
	// longestRegex bounds a path that is a regular expression, in bytes, and mostInstructions its compiled size: Envoy
	// takes programs of 2,000 instructions of RE2, which counts others than Go does.
	longestRegex, mostInstructions = 1000, 500
	// anyCharCost is what a dot costs in RE2, which has it in bytes of UTF-8.
	anyCharCost = 10
)

// wantsRegex says whether a path of an Ingress with regular expressions is one: a Prefix that looks like a path stays
// what the Ingress API says, and so does all that is Exact.
func wantsRegex(text string, kind networkingv1.PathType) bool {
	switch kind {
	case networkingv1.PathTypeImplementationSpecific:
		return text != "" && text != "/"
	case networkingv1.PathTypePrefix:
		return strings.ContainsAny(text, `*^[]{}|()$+?\`)
	}
	return false
}

// checkRegex returns a regular expression as Envoy's RE2 takes it for sure: parsed by Go, whose syntax is nearly the same,
// reduced to what a path in a request can hold, ASCII, and written anew from what was understood. Nothing in it depends on
// the case of letters.
func checkRegex(text string) (string, error) {
	if !strings.HasPrefix(text, "/") {
		return "", errors.New("must start with a slash")
	}
	return plainRegex(text, syntax.Perl|syntax.FoldCase)
}

// plainRegex is checkRegex for what is no path.
func plainRegex(text string, flags syntax.Flags) (string, error) {
	switch {
	case len(text) > longestRegex:
		return "", fmt.Errorf("is longer than %d bytes", longestRegex)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return "", errors.New("has a space, a control character or one beyond ASCII; write it percent-encoded")
	}
	parsed, err := syntax.Parse(text, flags)
	if err != nil {
		return "", fmt.Errorf("is no regular expression of RE2 (%w); look-around and back-references have no equivalent", err)
	}
	if err := reduce(parsed); err != nil {
		return "", err
	}
	return writeRegex(parsed)
}

// writeRegex writes an expression that holds ASCII only, and no names of groups.
func writeRegex(parsed *syntax.Regexp) (string, error) {
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return "", fmt.Errorf("is no regular expression of RE2: %w", err)
	}
	cost := 0
	for _, i := range program.Inst {
		cost++
		switch i.Op {
		case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			cost += anyCharCost
		case syntax.InstRune: // RE2 has one instruction for each range of a class
			cost += len(i.Rune) / 2
		}
	}
	if cost > mostInstructions {
		return "", errors.New("is too large a regular expression; repeat less, or use several paths")
	}
	return parsed.String(), nil
}

// reduce takes from a regular expression what no path in a request can hold, and the names of groups, which RE2 may not
// know.
func reduce(re *syntax.Regexp) error {
	const last = 0x7f
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if r > last {
				return fmt.Errorf("has the character %q, which no request has unescaped", r)
			}
		}
	case syntax.OpCharClass:
		var kept []rune
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i] <= last {
				kept = append(kept, re.Rune[i], min(re.Rune[i+1], last))
			}
		}
		if len(kept) == 0 {
			return errors.New("has a class of characters that no request has unescaped")
		}
		re.Rune = kept
	case syntax.OpCapture:
		re.Name = ""
	}
	for _, sub := range re.Sub {
		if err := reduce(sub); err != nil {
			return err
		}
	}
	return nil
}
