package bundle

import (
	"bytes"
	"regexp"
)

// removed stands where something was taken out.
const removed = "[removed]"

// A form is one in which a secret can be told from other text.
type form struct {
	// hints are in lower case. Text that has none of them cannot have the form: that is found out many times faster.
	hints   []string
	pattern *regexp.Regexp
	// with replaces it; ${1} is what stays.
	with string
}

// blocks are forms of more than one line.
var blocks = []form{
	// Private keys in PEM (RFC 7468), also where line ends are escaped, or the end is cut off.
	{[]string{"private key-----"}, regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`), removed},
	// The rest of one, where the text begins in its middle.
	{[]string{"private key-----"}, regexp.MustCompile(`\A[A-Za-z0-9+/=\s]+-----END [A-Z0-9 ]*PRIVATE KEY-----`), removed},
	// Anything in PEM that is in base64 once more, as in Secrets.
	{[]string{"ls0tls1crudjti"}, regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/=_\-\\n\s]*`), removed},
}

// inLines are forms within a line.
var inLines = []form{
	// The values of headers that identify a client (RFC 9110, RFC 6265), to the end of the line or string.
	{
		[]string{"authorization", "cookie", "x-"},
		regexp.MustCompile(`(?i)((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]*(?:key|token|secret|auth)[a-z-]*)(\\?["']?\s*[:=]\s*\[?\\?["']?)[^"'\r\n\\]+`),
		"${1}${2}" + removed,
	},
	// Credentials with their scheme (RFC 7617, RFC 6750).
	{
		[]string{"basic", "bearer", "digest"},
		regexp.MustCompile(`(?i)\b(basic|bearer|digest)\s+[A-Za-z0-9+/=._~-]{6,}`), "${1} " + removed,
	},
	// JSON web tokens (RFC 7519).
	{[]string{"eyj"}, regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?`), removed},
	// Whatever identifies a user in a URL (RFC 3986).
	{[]string{"://"}, regexp.MustCompile(`(://)[^/\s@?#"']+@`), "${1}" + removed + "@"},
	// Assignments by name: password=..., "apiKey": "...", aws_secret_access_key: ..., --token ....
	{
		[]string{"pass", "pwd", "token", "key", "secret", "credential"},
		regexp.MustCompile(`(?i)(\b(?:[a-z0-9-]*_)*(?:password|passwd|passphrase|pwd|token|secret|api[-_]?key|access[-_]?key|private[-_]?key|secret[-_]?key|client[-_]?secret|credentials?)` +
			`\\?["']?\s*(?:=|:\s*\\?["'])\s*\\?["']?)[^\s"'\\,;&}]+`),
		"${1}" + removed,
	},
	// As YAML and many logs have them. Hythe's own words are spared, which tell of a Secret by its name.
	{
		[]string{"pass", "pwd", "token", "key", "secret", "credential"},
		regexp.MustCompile(`(?i)(\b(?:[a-z0-9-]*[_-])*(?:password|passwd|passphrase|pwd|token|api[-_]?key|access[-_]?key|private[-_]?key|secret[-_]?key|client[-_]?secret|secret)` +
			`:\s+)[^\s"'\\,;&}\[/]{4,}([\s,;&}]|$)`),
		"${1}" + removed + "${2}",
	},
	{
		[]string{"password", "token", "secret"},
		regexp.MustCompile(`(?i)((?:^|\s)--?[a-z-]*(?:password|token|secret)\s+)[^\s-]\S*`), "${1}" + removed,
	},
}

// Scrub takes out of text what looks like a secret.
func Scrub(text []byte) []byte {
	text = scrub(text, blocks)
	var out []byte
	for line := range bytes.Lines(text) {
		out = append(out, scrub(line, inLines)...)
	}
	return out
}

func scrub(text []byte, forms []form) []byte {
	lower := bytes.ToLower(text)
	for _, f := range forms {
		for _, hint := range f.hints {
			if bytes.Contains(lower, []byte(hint)) {
				text = f.pattern.ReplaceAll(text, []byte(f.with))
				break
			}
		}
	}
	return text
}
