package policy

import (
	"strconv"
	"strings"
	"time"
)

// CORS says which pages of other origins may read answers in browsers (fetch.spec.whatwg.org, "CORS protocol").
type CORS struct {
	Enabled bool
	// AnyOrigin is "*". Otherwise an origin must match one of Origins, which are RE2 expressions for all of it.
	AnyOrigin bool
	Origins   []string
	// Methods, Headers and Expose are the values of the headers with these names, as they are written.
	Methods, Headers, Expose string
	Credentials              bool
	MaxAge                   time.Duration
}

// String is "*" or the origins.
func (c CORS) String() string {
	switch {
	case !c.Enabled:
		return ""
	case c.AnyOrigin:
		return "*"
	}
	return strings.Join(c.Origins, ",")
}

// A Header is one change of a request's or an answer's headers.
type Header struct {
	Name string
	// Value is what the header has afterwards; its parts are put together. Nil removes it.
	Value []HeaderPart
	// Add keeps what is there, and adds one more of the name.
	Add bool
}

// A HeaderPart is text, or what is known of the request.
type HeaderPart struct {
	// Text is literal where Of is HeaderText, and the name of a header where it is HeaderRequest.
	Text string
	Of   HeaderSource
}

// A HeaderSource is where the value of a HeaderPart comes from.
type HeaderSource uint8

// The sources of HeaderParts.
const (
	HeaderText    HeaderSource = iota
	HeaderClient               // the client's address
	HeaderHost                 // the host that was asked for
	HeaderScheme               // http or https
	HeaderRequest              // a header of the request
)

// Literal is a value without sources.
func Literal(text string) []HeaderPart { return []HeaderPart{{Text: text}} }

// String is "X-A=b", "+X-A=b" or "-X-A".
func (h Header) String() string {
	if h.Value == nil {
		return "-" + h.Name
	}
	out := h.Name + "="
	if h.Add {
		out = "+" + out
	}
	return out + partsText(h.Value)
}

func partsText(parts []HeaderPart) string {
	out := ""
	for _, p := range parts {
		out += [...]string{"", "{client}", "{host}", "{scheme}", "{header}"}[p.Of] + p.Text
	}
	return out
}

func headersText(list []Header) string {
	out := make([]string, len(list))
	for i, h := range list {
		out[i] = strconv.Quote(h.String())
	}
	return strings.Join(out, ",")
}

// An Answer is given in the place of the backend's.
type Answer struct {
	// Status is 0 for none.
	Status uint32
	Body   string
}

// String is the status.
func (a Answer) String() string {
	if a.Status == 0 {
		return ""
	}
	return strconv.Itoa(int(a.Status))
}
