package gateway

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"hythe.dev/hythe/internal/model"
)

const (
	// mostAlike is how many Problems of one object and reason are told one by one. An object of 1.5 MiB has room for
	// 20,000 bad paths, and Problems go into Reports and Events, each of which is an object.
	mostAlike = 20
	// longestMessage bounds a Problem's message in bytes: an Event holds 1,024.
	longestMessage = 1000
	// longestQuote bounds what a message quotes of an object.
	longestQuote = 100
)

// bounded sorts problems, removes repeated ones, and keeps their number and length in bounds, and each on one line,
// whatever is in the objects.
func bounded(problems []model.Problem) []model.Problem {
	problems = model.SortProblems(problems)
	var out []model.Problem
	for i := 0; i < len(problems); {
		end := i + 1
		for end < len(problems) && problems[end].Object == problems[i].Object && problems[end].Reason == problems[i].Reason {
			end++
		}
		for n := i; n < end; n++ {
			p := problems[n]
			if n-i == mostAlike-1 && end-n > 1 {
				out = append(out, model.Problemf(p.Object, p.Reason, "there are %d more like these", end-n))
				break
			}
			p.Message = cut(strings.Map(printable, p.Message), longestMessage)
			out = append(out, p)
		}
		i = end
	}
	return out
}

// printable replaces control characters, which names in files may have.
func printable(r rune) rune {
	if unicode.IsControl(r) {
		return unicode.ReplacementChar
	}
	return r
}

// quote quotes what an object says, shortened.
func quote(text string) string {
	if len(text) > longestQuote {
		return strconv.Quote(text[:longestQuote]) + "…"
	}
	return strconv.Quote(text)
}

// shorten is quote for what is not in quotes as long as it is a name like others.
func shorten(text string) string {
	if quoted := quote(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}

// cut shortens a text to at most so many bytes.
func cut(text string, most int) string {
	const more = "…"
	if len(text) <= most {
		return text
	}
	most -= len(more)
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + more
}

// firstFew joins the first few of many texts.
func firstFew(texts []string) string {
	const few = 4
	if len(texts) <= few {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:few], ", "), len(texts)-few)
}
