package xds

import "strings"

// CanonicalPath writes a path as Envoy's normalize_path writes that of a request before it looks for a route (RFC
// 3986 section 6.2.2): unreserved characters unescaped, and those escaped that no URI may hold. A route that holds
// another spelling would never match. Everything else that normalize_path changes, such as dot segments, package
// gateway refuses in routes.
func CanonicalPath(path string) string {
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c == '%' && i+2 < len(path) && unreserved(unhex(path[i+1], path[i+2])):
			out.WriteByte(unhex(path[i+1], path[i+2]))
			i += 2
		case strings.IndexByte("\"<>^`{|}", c) >= 0:
			out.WriteByte('%')
			out.WriteByte(hex[c>>4])
			out.WriteByte(hex[c&15])
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// unreserved are the characters that mean the same escaped and unescaped (RFC 3986 section 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// unhex returns the byte that two hexadecimal digits spell, or 0, which is reserved, if they are none.
func unhex(high, low byte) byte {
	h, l := digit(high), digit(low)
	if h > 15 || l > 15 {
		return 0
	}
	return h<<4 | l
}

func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
