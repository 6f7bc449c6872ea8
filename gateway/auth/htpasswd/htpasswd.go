package htpasswd

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const (
	// maxCost is the highest cost of bcrypt: each one more doubles the time, and 14 takes a second.
	maxCost = 14
	// maxRounds is the highest number of rounds of crypt's SHA hashes; the default is 5,000.
	maxRounds = 200_000
	// MaxPassword is the longest password that is compared, in bytes.
	MaxPassword = 512
)

// Check says what is wrong with a hash. Its errors have nothing of the hash.
func Check(hash string) error {
	switch {
	case strings.HasPrefix(hash, "{SHA}"):
		if _, ok := decodeSHA(hash); !ok {
			return errors.New("a {SHA} hash that is none")
		}
	case strings.HasPrefix(hash, "{SSHA}"):
		if _, _, ok := decodeSalted(hash); !ok {
			return errors.New("an {SSHA} hash that is none")
		}
	case strings.HasPrefix(hash, "{PLAIN}"):
		if hash == "{PLAIN}" {
			return errors.New("an empty password")
		}
	case strings.HasPrefix(hash, "$2"):
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil || len(hash) != 60 {
			return errors.New("a bcrypt hash that is none")
		}
		if cost > maxCost {
			return fmt.Errorf("a bcrypt hash of cost %d, which takes more than a second to compare; at most %d is possible", cost, maxCost)
		}
	case strings.HasPrefix(hash, "$apr1$"), strings.HasPrefix(hash, "$1$"):
		if _, err := parseMD5(hash); err != nil {
			return err
		}
	case strings.HasPrefix(hash, "$5$"), strings.HasPrefix(hash, "$6$"):
		if _, err := parseSHA(hash); err != nil {
			return err
		}
	case len(hash) == 13 && !strings.ContainsAny(hash, "{}$"):
		return errors.New("a hash of crypt's DES, which looks at eight characters only; make it anew by htpasswd -B")
	default:
		return errors.New("a hash of an unknown kind; make it by htpasswd -B")
	}
	return nil
}

// Verify says whether a hash is that of a password. Hashes that Check refuses are of none.
func Verify(hash, password string) bool {
	if len(password) > MaxPassword || Check(hash) != nil {
		return false
	}
	switch {
	case strings.HasPrefix(hash, "{SHA}"):
		want, _ := decodeSHA(hash)
		got := sha1.Sum([]byte(password))
		return subtle.ConstantTimeCompare(want, got[:]) == 1
	case strings.HasPrefix(hash, "{SSHA}"):
		want, salt, _ := decodeSalted(hash)
		got := sha1.Sum(append([]byte(password), salt...))
		return subtle.ConstantTimeCompare(want, got[:]) == 1
	case strings.HasPrefix(hash, "{PLAIN}"):
		want, got := sha1.Sum([]byte(hash[len("{PLAIN}"):])), sha1.Sum([]byte(password)) // of equal length
		return subtle.ConstantTimeCompare(want[:], got[:]) == 1
	case strings.HasPrefix(hash, "$2"):
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
	case strings.HasPrefix(hash, "$5$"), strings.HasPrefix(hash, "$6$"):
		p, err := parseSHA(hash)
		return err == nil && equal(p.sum, p.hash([]byte(password)))
	}
	p, err := parseMD5(hash)
	return err == nil && equal(p.sum, p.hash([]byte(password)))
}

// Dear says whether a comparison takes longer than some ten microseconds.
func Dear(hash string) bool { return strings.HasPrefix(hash, "$") }

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func decodeSHA(hash string) ([]byte, bool) {
	raw, err := base64.StdEncoding.DecodeString(hash[len("{SHA}"):])
	return raw, err == nil && len(raw) == sha1.Size
}

func decodeSalted(hash string) (sum, salt []byte, ok bool) {
	raw, err := base64.StdEncoding.DecodeString(hash[len("{SSHA}"):])
	if err != nil || len(raw) <= sha1.Size || len(raw) > sha1.Size+64 {
		return nil, nil, false
	}
	return raw[:sha1.Size], raw[sha1.Size:], true
}

// crypt64 is the alphabet of crypt's hashes, in its order.
const crypt64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// append64 writes the low bits of v, six for each of n characters, the lowest first.
func append64(out []byte, v uint32, n int) []byte {
	for range n {
		out = append(out, crypt64[v&63])
		v >>= 6
	}
	return out
}

func isCrypt64(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune(crypt64, c) })
}

// rounds reads "rounds=N" of crypt's SHA hashes.
func rounds(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 || n > maxRounds {
		return 0, fmt.Errorf("a hash of crypt with a number of rounds that is not from 1000 to %d", maxRounds)
	}
	return n, nil
}
