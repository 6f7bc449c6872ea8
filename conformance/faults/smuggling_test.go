package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A smuggle is a request in bytes which two servers could read differently. hidden is the request that the one takes for a
// body and the other for the next request; the pod must never see it.
type smuggle struct {
	name string
	send string
	// want is the first answer, 0 for none. more says that a second answer is right, as Envoy itself saw two requests.
	want int
	more bool
}

const hidden = "GET /closed/secret HTTP/1.1\r\nHost: a.test\r\n\r\n"

func smuggles() []smuggle {
	post := func(headers ...string) string {
		return crlf(slices.Concat([]string{"POST / HTTP/1.1", "Host: a.test"}, headers, []string{""})...)
	}
	chunked := "0\r\n\r\n" + hidden
	length := fmt.Sprintf("Content-Length: %d", len(chunked))
	return []smuggle{
		{"CL.TE", post(length, "Transfer-Encoding: chunked") + chunked, 400, false},
		{"TE.CL", post("Transfer-Encoding: chunked", "Content-Length: 4") + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden), 400, false},
		{"TE.TE identity", post("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + chunked, 501, false},
		{"TE.TE twice", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + chunked, 501, false},
		{"TE.TE list", post("Transfer-Encoding: chunked, identity") + chunked, 501, false},
		{"TE identity, chunked", post("Transfer-Encoding: identity, chunked") + chunked, 501, false},
		{"TE unknown", post("Transfer-Encoding: xchunked", length) + chunked, 400, false},
		{"TE quoted", post(`Transfer-Encoding: "chunked"`) + chunked, 501, false},
		{"TE vertical tab", post("Transfer-Encoding: \x0bchunked", length) + chunked, 400, false},
		{"TE NUL", post("Transfer-Encoding: chunked\x00", length) + chunked, 400, false},
		{"TE with space before colon", post("Transfer-Encoding : chunked", length) + chunked, 400, false},
		{"TE with tab", post("Transfer-Encoding:\tchunked", length) + chunked, 400, false},
		{"TE by LF in a value", post("X: y\nTransfer-Encoding: chunked", length) + chunked, 400, false},
		{"TE by CR in a value", post("X: y\rTransfer-Encoding: chunked", length, "Connection: close") + chunked, 200, false}, // the pod sees no CR
		{"TE in HTTP/1.0", strings.Replace(post("Transfer-Encoding: chunked", length), "HTTP/1.1", "HTTP/1.0", 1) + chunked, 400, false},
		{"TE on a GET", strings.Replace(post("Transfer-Encoding: chunked", length), "POST", "GET", 1) + chunked, 400, false},
		{"obs-fold", post("Transfer-Encoding:\r\n chunked", length) + chunked, 400, false},
		{"obs-fold of any header", post("X: a\r\n b", "Content-Length: 0"), 200, false}, // RFC 9112 section 5.2
		{"header that begins with space", post(" Transfer-Encoding: chunked", length) + chunked, 400, false},
		{"underscore", post("Transfer_Encoding: chunked", length) + chunked, 400, false},
		{"two CL", post("Content-Length: 0", length) + chunked, 400, false},
		{"two CL alike", post("Content-Length: 5", "Content-Length: 5") + "hello", 400, false},
		{"CL list", post("Content-Length: 0, 5") + "hello", 400, false},
		{"CL plus", post("Content-Length: +5") + "hello", 400, false},
		{"CL minus", post("Content-Length: -5") + "hello", 400, false},
		{"CL hex", post("Content-Length: 0x5") + "hello", 400, false},
		{"CL empty", post("Content-Length: ") + chunked, 400, false},
		{"CL space inside", post("Content-Length: 1 0") + chunked, 400, false},
		{"CL beyond 64 bits", post("Content-Length: 18446744073709551616") + hidden, 400, false},
		{"CL letters after", post("Content-Length: 5a") + "hello", 400, false},
		{"chunk size beyond 64 bits", post("Transfer-Encoding: chunked") + "10000000000000000\r\n" + hidden, 400, false},
		{"chunk size negative", post("Transfer-Encoding: chunked") + "-1\r\n" + hidden, 400, false},
		{"chunk size 0x", post("Transfer-Encoding: chunked") + "0x5\r\nhello\r\n0\r\n\r\n", 400, false},
		{"chunk without CRLF after", post("Transfer-Encoding: chunked") + "5\r\nhelloXX0\r\n\r\n" + hidden, 400, false},
		{"chunk by LF alone", post("Transfer-Encoding: chunked") + "5\nhello\n0\n\n" + hidden, 400, false},
		{"chunk extension", post("Transfer-Encoding: chunked", "Connection: close") + "5;a=b\r\nhello\r\n0\r\n\r\n", 200, false},
		{"chunk extension with LF", post("Transfer-Encoding: chunked") + "2;\nxx\r\n4c\r\n0\r\n\r\n" + hidden, 400, false},
		{"trailer Content-Length", post("Transfer-Encoding: chunked", "Connection: close") + "0\r\nContent-Length: 50\r\n\r\n", 200, false},
		{"trailer with LF", post("Transfer-Encoding: chunked") + "0\r\nX: a\nContent-Length: 50\r\n\r\n" + hidden, 200, true},
		{"LF lines", "POST / HTTP/1.1\nHost: a.test\nContent-Length: 0\n\n", 200, false}, // RFC 9112 section 2.2
		{"CR lines", "POST / HTTP/1.1\rHost: a.test\rContent-Length: 0\r\r", 0, false},
		{"CR alone in the request line", "GET / HTTP/1.1\rGET /closed/secret HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, false},
		{"space in the target", "GET / /closed/secret HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, false},
		{"HTTP/0.9", "GET /\r\n", 400, false},
		{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a.test\r\n\r\n", 200, false},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 404, false}, // they are one, of nobody
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400, false},
		{"host with path", "GET / HTTP/1.1\r\nHost: a.test/closed\r\n\r\n", 400, false},
		{"host and absolute target", "GET http://a.test/closed/secret HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n", 403, false},
		{"target without slash", "GET closed/secret HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, false},
		{"method with NUL", "GE\x00T / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, false},
		{"header name with NUL", "GET / HTTP/1.1\r\nHost: a.test\r\nX\x00: y\r\n\r\n", 400, false},
		{"header without colon", "GET / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding\r\n\r\n", 400, false},
		{"body of a GET", strings.Replace(post(fmt.Sprintf("Content-Length: %d", len(hidden)), "Connection: close"), "POST", "GET", 1) + hidden, 200, false},
		{"two in order", post("Content-Length: 0") + hidden, 200, true},
		{"Upgrade h2c", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n" + hidden, 0, true},
		{"WebSocket that is none", "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: x\r\n\r\n" + hidden, 0, true},
		{"CONNECT", "CONNECT a.test:80 HTTP/1.1\r\nHost: a.test\r\n\r\n" + hidden, 0, true},
		{"Expect", post(length, "Expect: 100-continue") + chunked, 0, true},
	}
}

// TestSmuggling sends requests of HTTP/1.1 that two servers could read differently. The pod gets one request at most, and
// never the hidden one.
func TestSmuggling(t *testing.T) {
	r, p := start(t)
	for _, s := range smuggles() {
		answers, _ := raw(r.Settings.HTTP, s.send, 300*time.Millisecond)
		saw, whole, broken := p.take()
		if s.want != 0 && (len(answers) == 0 || answers[0] != s.want) || len(answers) > 1 && !s.more {
			t.Errorf("%s: answers %v, want %d", s.name, answers, s.want)
		}
		if len(saw) > 1 || len(broken) > 0 || slices.ContainsFunc(saw, func(s string) bool { return strings.Contains(s, "closed") }) {
			t.Errorf("%s: the pod saw %q, and could not read %q", s.name, saw, broken)
		}
		if s.want >= 400 && len(whole) > 0 {
			t.Errorf("%s: was refused, but the pod got %q", s.name, whole)
		}
	}
	t.Logf("%d vectors", len(smuggles()))
}
