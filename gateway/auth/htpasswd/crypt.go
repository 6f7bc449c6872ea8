package htpasswd

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"strings"
)

// md5Hash is a hash by MD5 and 1,000 rounds: "$1$SALT$SUM" of crypt, "$apr1$SALT$SUM" of Apache.
type md5Hash struct{ magic, salt, sum string }

func parseMD5(text string) (md5Hash, error) {
	magic := "$1$"
	if strings.HasPrefix(text, "$apr1$") {
		magic = "$apr1$"
	}
	salt, sum, ok := strings.Cut(text[len(magic):], "$")
	if !ok || len(salt) > 8 || len(sum) != 22 || !isCrypt64(sum) {
		return md5Hash{}, errors.New("an MD5 hash that is none")
	}
	return md5Hash{magic, salt, sum}, nil
}

func (h md5Hash) hash(password []byte) string {
	salt := []byte(h.salt)
	sum := func(parts ...[]byte) []byte {
		m := md5.New()
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
	other := sum(password, salt, password)
	first := [][]byte{password, []byte(h.magic), salt, repeat(other, len(password))}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			first = append(first, []byte{0})
		} else {
			first = append(first, password[:1])
		}
	}
	last := sum(first...)
	for i := range 1000 {
		a, b := last, password
		if i&1 != 0 {
			a, b = b, a
		}
		parts := [][]byte{a}
		if i%3 != 0 {
			parts = append(parts, salt)
		}
		if i%7 != 0 {
			parts = append(parts, password)
		}
		last = sum(append(parts, b)...)
	}
	var out []byte
	for _, g := range [][3]int{{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}} {
		out = append64(out, uint32(last[g[0]])<<16|uint32(last[g[1]])<<8|uint32(last[g[2]]), 4)
	}
	return string(append64(out, uint32(last[11]), 2))
}

// repeat is b again and again, n bytes of it.
func repeat(b []byte, n int) []byte {
	out := make([]byte, n)
	for i := 0; i < n; i += len(b) {
		copy(out[i:], b)
	}
	return out
}

// shaHash is a hash of crypt by SHA-256 or SHA-512: "$5$SALT$SUM", "$6$rounds=N$SALT$SUM"
// (https://www.akkadia.org/drepper/SHA-crypt.txt).
type shaHash struct {
	wide      bool // SHA-512
	rounds    int
	salt, sum string
}

func parseSHA(text string) (shaHash, error) {
	bad := errors.New("a SHA hash of crypt that is none")
	h := shaHash{wide: text[1] == '6', rounds: 5000}
	rest := text[3:]
	if r, ok := strings.CutPrefix(rest, "rounds="); ok {
		number, after, ok := strings.Cut(r, "$")
		if !ok {
			return h, bad
		}
		var err error
		if h.rounds, err = rounds(number); err != nil {
			return h, err
		}
		rest = after
	}
	var ok bool
	h.salt, h.sum, ok = strings.Cut(rest, "$")
	length := 43
	if h.wide {
		length = 86
	}
	if !ok || len(h.salt) > 16 || len(h.sum) != length || !isCrypt64(h.sum) {
		return h, bad
	}
	return h, nil
}

func (h shaHash) hash(password []byte) string {
	newHash := sha256.New
	if h.wide {
		newHash = sha512.New
	}
	salt := []byte(h.salt)
	sum := func(parts ...[]byte) []byte { return digest(newHash(), parts...) }
	other := sum(password, salt, password)
	first := [][]byte{password, salt, repeat(other, len(password))}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			first = append(first, other)
		} else {
			first = append(first, password)
		}
	}
	last := sum(first...)
	var many [][]byte
	for range password {
		many = append(many, password)
	}
	p := repeat(sum(many...), len(password))
	many = many[:0]
	for range 16 + int(last[0]) {
		many = append(many, salt)
	}
	s := repeat(sum(many...), len(salt))
	for i := range h.rounds {
		a, b := last, p
		if i&1 != 0 {
			a, b = b, a
		}
		parts := [][]byte{a}
		if i%3 != 0 {
			parts = append(parts, s)
		}
		if i%7 != 0 {
			parts = append(parts, p)
		}
		last = sum(append(parts, b)...)
	}
	return shaText(last)
}

func digest(h hash.Hash, parts ...[]byte) []byte {
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// shaText writes the sum in crypt's order of bytes.
func shaText(sum []byte) string {
	var out []byte
	third := len(sum) / 3 // 10 or 21
	i, j, k := 0, third, 2*third
	for range third {
		out = append64(out, uint32(sum[i])<<16|uint32(sum[j])<<8|uint32(sum[k]), 4)
		if len(sum) == sha512.Size {
			i, j, k = j+1, k+1, i+1
		} else {
			i, j, k = k+1, i+1, j+1
		}
	}
	if len(sum) == sha512.Size {
		return string(append64(out, uint32(sum[63]), 2))
	}
	return string(append64(out, uint32(sum[31])<<8|uint32(sum[30]), 3))
}
