package nginx

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"hythe.dev/hythe/gateway/policy"
)

// A harmlessError says that something has no effect which protects nothing.
type harmlessError struct{ text string }

func (e *harmlessError) Error() string { return e.text }

// harmless are directives of nginx that only concern how it buffers, times and logs.
var harmless = []string{
	"access_log", "chunked_transfer_encoding", "client_body_buffer_size", "client_header_timeout", "error_log", "expires", "gzip",
	"gzip_comp_level", "gzip_min_length", "gzip_proxied", "gzip_types", "gzip_vary", "keepalive_timeout",
	"large_client_header_buffers", "log_not_found", "proxy_buffer_size", "proxy_buffering", "proxy_buffers",
	"proxy_busy_buffers_size", "proxy_cache", "proxy_cache_valid", "proxy_connect_timeout", "proxy_http_version",
	"proxy_max_temp_file_size", "proxy_read_timeout", "proxy_request_buffering", "proxy_send_timeout", "send_timeout",
	"sendfile", "server_tokens", "tcp_nodelay", "tcp_nopush", "underscores_in_headers",
}

// snippet reads the directives that are about headers and answers, as data. Any other one that is not known to be
// harmless may be what keeps somebody out, so it is an error.
func snippet(s *Settings, value string) error {
	directives, err := parseSnippet(value)
	if err != nil {
		return err
	}
	var without []string
	for _, words := range directives {
		name, args := words[0], words[1:]
		switch {
		case name == "more_set_headers":
			err = moreSetHeaders(s, args)
		case name == "more_clear_headers":
			err = moreClearHeaders(s, args)
		case name == "add_header":
			err = addHeader(s, args)
		case name == "proxy_set_header":
			err = proxySetHeader(s, args)
		case name == "return":
			err = returnDirective(s, args)
		case name == "auth_request_set" && len(args) == 2:
			err = s.ext.setLocal(args[0], args[1])
		case slices.Contains(harmless, name):
			without = append(without, name)
		default:
			err = errors.New("is not understood; only headers and return are, use annotations for the rest")
		}
		if err != nil {
			return fmt.Errorf("directive %s: %w", quoted(name), err)
		}
	}
	if len(without) > 0 {
		slices.Sort(without)
		return &harmlessError{"the rest of it holds, but not " + strings.Join(slices.Compact(without), ", ")}
	}
	return nil
}

// parseSnippet splits text into directives, and these into words, as nginx does. It knows no blocks.
func parseSnippet(text string) ([][]string, error) {
	var out [][]string
	var words []string
	for i := 0; i < len(text); {
		switch text[i] {
		case ' ', '\t', '\n', '\r':
			i++
		case '#':
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case '{', '}':
			first := "?"
			if len(words) > 0 {
				first = words[0]
			}
			return nil, fmt.Errorf("directive %s has a block, which is not understood", quoted(first))
		case ';':
			if len(words) == 0 {
				return nil, errors.New("it has a semicolon without a directive")
			}
			out, words = append(out, words), nil
			i++
		default:
			word, n, err := snippetWord(text[i:])
			if err != nil {
				return nil, err
			}
			words = append(words, word)
			i += n
		}
	}
	if len(words) > 0 {
		return nil, fmt.Errorf("directive %s has no semicolon at its end", quoted(words[0]))
	}
	return out, nil
}

// snippetWord is the word at the begin of text, and its length there.
func snippetWord(text string) (word string, n int, err error) {
	quote := text[0]
	if quote != '"' && quote != '\'' {
		n = strings.IndexAny(text, " \t\r\n;{}")
		if n < 0 {
			n = len(text)
		}
		if strings.Contains(text[:n], `\`) {
			return "", 0, fmt.Errorf("%s has a backslash, which is not understood", quoted(text[:n]))
		}
		return text[:n], n, nil
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == quote:
			if i+1 < len(text) && !strings.ContainsRune(" \t\r\n;", rune(text[i+1])) {
				return "", 0, fmt.Errorf("there is text directly after %s", quoted(b.String()))
			}
			return b.String(), i + 1, nil
		case text[i] == '\\' && i+1 < len(text):
			i++
			if text[i] != quote && text[i] != '\\' {
				return "", 0, fmt.Errorf(`\%c after %s is not understood`, text[i], quoted(b.String()))
			}
			b.WriteByte(text[i])
		default:
			b.WriteByte(text[i])
		}
	}
	return "", 0, errors.New("a quote is not closed")
}

var headerVariable = regexp.MustCompile(`\$(\{[a-z0-9_]+\}|[a-z0-9_]+|.?)`)

// headerValue reads a value with variables of nginx that Envoy knows, too.
func headerValue(value string) ([]policy.HeaderPart, error) {
	for i := range len(value) {
		if value[i] < 0x20 && value[i] != '\t' || value[i] >= 0x7f {
			return nil, fmt.Errorf("%s has a character that is not printable ASCII", quoted(value))
		}
	}
	parts, at := []policy.HeaderPart{}, 0
	for _, m := range headerVariable.FindAllStringSubmatchIndex(value, -1) {
		if m[0] > at {
			parts = append(parts, policy.HeaderPart{Text: value[at:m[0]]})
		}
		at = m[1]
		name := strings.Trim(value[m[2]:m[3]], "{}")
		switch header, ok := strings.CutPrefix(name, "http_"); {
		case ok && header != "":
			parts = append(parts, policy.HeaderPart{Of: policy.HeaderRequest, Text: strings.ReplaceAll(header, "_", "-")})
		case name == "remote_addr":
			parts = append(parts, policy.HeaderPart{Of: policy.HeaderClient})
		case name == "host" || name == "best_http_host":
			parts = append(parts, policy.HeaderPart{Of: policy.HeaderHost})
		case name == "scheme" || name == "pass_access_scheme":
			parts = append(parts, policy.HeaderPart{Of: policy.HeaderScheme})
		default:
			return nil, fmt.Errorf("variable %s is not known here; $host, $scheme, $remote_addr and $http_NAME are", quoted("$"+name))
		}
	}
	if at < len(value) {
		parts = append(parts, policy.HeaderPart{Text: value[at:]})
	}
	return parts, nil
}

// ownHeaders cannot be set: they are the connection's, or the gateway's word to backends about the client.
var ownHeaders = []string{
	"connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// newHeader checks name and value. An empty value removes the header, as in nginx.
func newHeader(name, value string) (policy.Header, error) {
	if !tokenPattern.MatchString(name) || len(name) > 200 {
		return policy.Header{}, fmt.Errorf("%s is not the name of a header", quoted(name))
	}
	if lower := strings.ToLower(name); slices.Contains(ownHeaders, lower) || strings.HasPrefix(lower, "x-envoy-") || strings.HasPrefix(lower, "x-hythe-") {
		return policy.Header{}, fmt.Errorf("header %s cannot be set", quoted(name))
	}
	parts, err := headerValue(value)
	if len(parts) == 0 {
		parts = nil
	}
	return policy.Header{Name: name, Value: parts}, err
}

func moreSetHeaders(s *Settings, args []string) error {
	if len(args) == 0 {
		return errors.New("names no header")
	}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, ":")
		if strings.HasPrefix(arg, "-") || !ok {
			return fmt.Errorf(`%s is not of the form "Name: value"; options are not understood`, quoted(arg))
		}
		h, err := newHeader(strings.TrimSpace(name), strings.TrimSpace(value))
		if err != nil {
			return err
		}
		s.Route.ResponseHeaders = append(s.Route.ResponseHeaders, h)
	}
	return nil
}

func moreClearHeaders(s *Settings, args []string) error {
	for _, arg := range args {
		h, err := newHeader(arg, "")
		if err != nil || strings.ContainsAny(arg, "*") {
			return fmt.Errorf("%s is not the name of one header", quoted(arg))
		}
		s.Route.ResponseHeaders = append(s.Route.ResponseHeaders, h)
	}
	return nil
}

func addHeader(s *Settings, args []string) error {
	if len(args) == 3 && args[2] == "always" {
		args = args[:2]
	}
	if len(args) != 2 {
		return errors.New("must have a name and a value")
	}
	h, err := newHeader(args[0], args[1])
	if err != nil || h.Value == nil {
		return err
	}
	h.Add = true
	s.Route.ResponseHeaders = append(s.Route.ResponseHeaders, h)
	return nil
}

func proxySetHeader(s *Settings, args []string) error {
	if len(args) != 2 {
		return errors.New("must have a name and a value")
	}
	if strings.EqualFold(args[0], "host") {
		if args[1] == "$host" || args[1] == "$http_host" || args[1] == "$best_http_host" {
			return nil
		}
		if !domainPattern.MatchString(args[1]) {
			return fmt.Errorf("Host cannot be %s: it must be a name, or $host", quoted(args[1]))
		}
		s.Route.HostHeader = args[1]
		return nil
	}
	if lower := strings.ToLower(args[0]); slices.Contains([]string{"connection", "upgrade"}, lower) {
		return nil // WebSockets work without
	}
	if from, ok := s.ext.locals[strings.TrimPrefix(args[1], "$")]; ok { // of the auth server's answer
		s.ext.asked.Copy = append(s.ext.asked.Copy, policy.HeaderCopy{From: from, To: args[0]})
		return copyable(args[0])
	}
	h, err := newHeader(args[0], args[1])
	if err == nil {
		s.Route.RequestHeaders = append(s.Route.RequestHeaders, h)
	}
	return err
}

// returnDirective reads an answer in the place of the backend's. Of several the first one counts.
func returnDirective(s *Settings, args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return errors.New("must have a status, and may have a text or a URL")
	}
	if s.Route.Answer.Status != 0 || s.Route.Redirect.Code != 0 {
		return nil
	}
	text := ""
	if len(args) == 2 {
		text = args[1]
	}
	code, err := strconv.Atoi(args[0])
	if err != nil || code < 200 || code > 599 || code == 444 || code == 499 {
		return fmt.Errorf("%s is not a status from 200 to 599", quoted(args[0]))
	}
	if strings.ContainsAny(text, "$") {
		return fmt.Errorf("%s has a variable, which is not understood", quoted(text))
	}
	if slices.Contains([]int{301, 302, 303, 307, 308}, code) {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
			return fmt.Errorf("%s is not a URL to redirect to, as https://example.com/path", quoted(text))
		}
		port, _ := strconv.ParseUint(u.Port(), 10, 16)
		s.Route.Redirect = policy.Redirect{Scheme: u.Scheme, Host: u.Hostname(), Port: uint16(port), Code: code, Path: "/"}
		if uri := u.RequestURI(); uri != "" {
			s.Route.Redirect.Path = uri
		}
		return nil
	}
	if len(text) > 4000 {
		return errors.New("its text is longer than 4,000 bytes")
	}
	s.Route.Answer = policy.Answer{Status: uint32(code), Body: text}
	return nil
}
