package faults

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// two is one connection of HTTP/2 whose frames are written as they stand.
type two struct {
	conn   net.Conn
	framer *http2.Framer
	text   bytes.Buffer
	hpack  *hpack.Encoder
}

func dialTwo(to netip.AddrPort) (*two, error) {
	conn, err := net.DialTimeout("tcp", to.String(), 5*time.Second)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		conn.Close()
		return nil, err
	}
	c := &two{conn: conn, framer: http2.NewFramer(conn, conn)}
	c.framer.AllowIllegalWrites = true
	c.hpack = hpack.NewEncoder(&c.text)
	if err := c.framer.WriteSettings(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// block encodes fields, which are names and values in turn.
func (c *two) block(fields ...string) []byte {
	c.text.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		_ = c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(c.text.Bytes())
}

// status reads until stream 1 has an answer, 0 if it was reset or the connection ended.
func (c *two) status() int {
	_ = c.conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			status, _ := strconv.Atoi(f.PseudoValue("status"))
			return status
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0
		}
	}
}

// refused stands for an answer 4xx, and for a stream or a connection that is ended.
const refused = -1

type smuggleTwo struct {
	name   string
	fields []string
	body   string
	want   int
}

func smugglesTwo() []smuggleTwo {
	base := func(more ...string) []string {
		return append([]string{":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a.test"}, more...)
	}
	with := func(name, value string) []string {
		out := base()
		for i := 0; i < len(out); i += 2 {
			if out[i] == name {
				out[i+1] = value
			}
		}
		return out
	}
	without := func(name string) []string {
		out := base()
		i := slices.Index(out, name)
		return slices.Delete(out, i, i+2)
	}
	return []smuggleTwo{
		{"plain", base(), "hello", 200},
		{"transfer-encoding", base("transfer-encoding", "chunked"), "0\r\n\r\n" + hidden, refused},
		{"content-length too short", base("content-length", "3"), "abc" + hidden, refused},
		{"content-length too long", base("content-length", "1000"), hidden, refused},
		{"content-length 0 with a body", base("content-length", "0"), hidden, refused},
		{"two content-length", base("content-length", "0", "content-length", "5"), "hello", refused},
		{"content-length with plus", base("content-length", "+5"), "hello", refused},
		{"CRLF in a value", base("x", "a\r\ntransfer-encoding: chunked"), hidden, refused},
		{"LF in a value", base("x", "a\nx: y"), hidden, refused},
		{"CR in a value", base("x", "a\rx: y"), hidden, refused},
		{"NUL in a value", base("x", "a\x00b"), "", refused},
		{"CRLF in a name", base("x: y\r\ntransfer-encoding", "chunked"), hidden, refused},
		{"colon in a name", base("transfer-encoding:", "chunked"), hidden, refused},
		{"space in a name", base("transfer-encoding ", "chunked"), hidden, refused},
		{"capitals in a name", base("Transfer-Encoding", "chunked"), hidden, refused},
		{"empty name", base("", "chunked"), "", refused},
		{"underscore in a name", base("transfer_encoding", "chunked"), "", refused},
		{"connection", base("connection", "keep-alive, transfer-encoding"), "", refused},
		{"keep-alive", base("keep-alive", "1"), "", refused},
		{"upgrade", base("upgrade", "h2c"), "", refused},
		{"proxy-connection", base("proxy-connection", "close"), "", refused},
		{"te", base("te", "chunked"), "", refused},
		{"CRLF in :path", with(":path", "/ HTTP/1.1\r\nHost: a.test\r\n\r\nGET /closed/secret"), "", refused},
		{"space in :path", with(":path", "/ HTTP/1.1"), "", refused},
		{"LF in :path", with(":path", "/\nx"), "", refused},
		{":path without slash", with(":path", "closed/secret"), "", refused},
		{":path with a host", with(":path", "http://b.test/closed/secret"), "", refused},
		{"empty :path", with(":path", ""), "", refused},
		{":path *", with(":path", "*"), "", refused},
		{"no :path", without(":path"), "", refused},
		{"two :path", base(":path", "/closed/secret"), "", refused},
		{"CRLF in :method", with(":method", "GET /closed/secret HTTP/1.1\r\nHost: a.test\r\n\r\nGET"), "", refused},
		{"space in :method", with(":method", "GET /closed/secret"), "", refused},
		{"empty :method", with(":method", ""), "", refused},
		{"no :method", without(":method"), "", refused},
		{"CRLF in :authority", with(":authority", "a.test\r\nX: y"), "", refused},
		{"path in :authority", with(":authority", "a.test/closed"), "", refused},
		{"user in :authority", with(":authority", "a.test@b.test"), "", refused},
		{"no :authority", without(":authority"), "", refused},
		{"two :authority", base(":authority", "b.test"), "", refused},
		{"CRLF in :scheme", with(":scheme", "http\r\nX: y"), "", refused},
		{":scheme with a path", with(":scheme", "http://a.test/closed?"), "", refused},
		{"pseudo header after others", base("x", "y", ":path", "/closed/secret"), "", refused},
		{"unknown pseudo header", base(":status", "200"), "", refused},
		{":protocol", base(":protocol", "websocket"), "", refused},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a.test"}, hidden, refused},
	}
}

// TestSmugglingByHTTP2 sends what HTTP/2 can say and HTTP/1.1, which the pod speaks, would read as something else.
func TestSmugglingByHTTP2(t *testing.T) {
	r, p := start(t)
	for _, s := range smugglesTwo() {
		c, err := dialTwo(r.Settings.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(s.fields...), EndHeaders: true, EndStream: s.body == ""})
		if s.body != "" {
			_ = c.framer.WriteData(1, true, []byte(s.body))
		}
		status := c.status()
		c.conn.Close()
		if ok := status == s.want || s.want == refused && (status == 0 || status >= 400); !ok {
			t.Errorf("%s: answer %d, want %d", s.name, status, s.want)
		}
		time.Sleep(20 * time.Millisecond) // for what would be on its way to the pod
		saw, _, broken := p.take()
		if len(saw) > 1 || len(broken) > 0 && s.want == 200 || slices.ContainsFunc(saw, func(s string) bool { return strings.Contains(s, "closed") }) {
			t.Errorf("%s: the pod saw %q, and could not read %q", s.name, saw, broken)
		}
	}
	t.Logf("%d vectors", len(smugglesTwo()))
}
