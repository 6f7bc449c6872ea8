package authz

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/auth/htpasswd"
)

// fillSalt makes the secret by which remembered passwords are hashed. It never leaves the process.
func fillSalt(salt *[32]byte) { _, _ = rand.Read(salt[:]) } // which does not fail

// password asks for a user and a password (RFC 7617).
func (s *Server) password(ctx context.Context, entry *auth.Entry, r *request) verdict {
	no := closed(401)
	no.answer = []header{{"WWW-Authenticate", `Basic realm="` + entry.Realm + `"`}}
	values := r.header.Values("Authorization")
	if len(values) != 1 {
		return no
	}
	user, password, ok := basic(values[0])
	if !ok {
		return no
	}
	for _, u := range entry.Users {
		if u.Name != user {
			continue
		}
		switch s.compares(ctx, u.Hash, password) {
		case right:
			return verdict{ok: true, remove: []string{"authorization"}}
		case busy:
			return closed(503)
		}
		break
	}
	return no
}

// basic reads the credentials of the scheme Basic.
func basic(value string) (user, password string, ok bool) {
	scheme, rest, ok := strings.Cut(value, " ")
	if !ok || !strings.EqualFold(scheme, "basic") {
		return "", "", false
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(raw), ":")
}

// A comparison is what came out of one.
type comparison uint8

const (
	wrong comparison = iota
	right
	busy // nobody could look
)

// compares compares a password with a hash. One that was right is remembered, by a hash whose salt is the process's own. Wrong
// ones are not: they wait for their turn, so whoever tries many cannot take all processors, or the memory.
func (s *Server) compares(ctx context.Context, hash, password string) comparison {
	result := func(ok bool) comparison {
		if ok {
			return right
		}
		return wrong
	}
	if len(password) > htpasswd.MaxPassword {
		return wrong
	}
	if !htpasswd.Dear(hash) {
		return result(htpasswd.Verify(hash, password))
	}
	mac := hmac.New(sha256.New, s.salt[:])
	mac.Write([]byte(hash))
	mac.Write([]byte{0})
	mac.Write([]byte(password))
	k := key(mac.Sum(nil))
	now := s.options.Now()
	if _, ok := s.right.get(k, now); ok {
		return right
	}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return busy
	}
	select {
	case s.compare <- struct{}{}:
		defer func() { <-s.compare }()
	case <-ctx.Done():
		return busy
	}
	if _, ok := s.right.get(k, now); ok { // of the same, who came a moment before
		return right
	}
	ok := htpasswd.Verify(hash, password)
	if ok {
		s.right.put(k, struct{}{}, rightBytes, now.Add(rightFor))
	}
	return result(ok)
}
