package gateway

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/gateway/auth/htpasswd"
	"hythe.dev/hythe/gateway/nginx"
	"hythe.dev/hythe/internal/model"
)

// A BasicAuth is who may come in by a password.
type BasicAuth struct {
	// Users is a file of htpasswd, all of whose hashes are of the kind {SHA}. It is a secret.
	Users string
	Realm string
}

// mostUsers bounds what is put into a route.
const mostUsers = 1000

// settleUsers finds the users of Ingresses that ask for them. Where there are none nobody may come in.
func (x *index) settleUsers(requests []*request, read secretReader) []model.Problem {
	var problems []model.Problem
	for _, r := range requests {
		if !r.asked.Basic.Enabled || r.refused != nil {
			continue
		}
		fault := model.Contain(model.Ref("Ingress", r.key), "Its paths answer 503", func() {
			users, refused := r.basicAuth(func(key model.Key) *corev1.Secret {
				_, _ = read(key) // remembers that the Secret was looked for
				return x.snapshot.Secrets.Get(key)
			})
			if r.refused = refused; refused != nil {
				return
			}
			if text, ok := forEnvoy(users); ok && !r.asked.Auth.Asks() {
				r.users = &BasicAuth{Users: text, Realm: r.asked.Basic.Realm}
			} else {
				r.passwords = users
			}
		})
		if fault != nil {
			r.refused = &refusal{fault[0].Reason, fault[0].Message}
		}
		problems = append(problems, fault...)
	}
	return problems
}

func (r *request) basicAuth(find func(model.Key) *corev1.Secret) ([]auth.User, *refusal) {
	asked := r.asked.Basic
	const annotation = "annotation " + nginx.Prefix + "auth-secret: "
	refuse := func(reason, format string, args ...any) ([]auth.User, *refusal) {
		return nil, &refusal{reason, annotation + fmt.Sprintf(format, args...)}
	}
	key := model.Key{Namespace: r.key.Namespace, Name: asked.Secret}
	if namespace, name, ok := strings.Cut(asked.Secret, "/"); ok {
		key = model.Key{Namespace: namespace, Name: name}
	}
	if key.Name == "" {
		return refuse("SecretNotFound", "it is missing; name a Secret with users and hashes of their passwords")
	}
	if no := r.mayRefer(v1alpha1.GrantSecret, key, "copy it into namespace "+r.key.Namespace); no != nil {
		return refuse(no.reason, "%s", no.message)
	}
	secret := find(key)
	if secret == nil {
		return refuse("SecretNotFound", "Secret %s does not exist; or it does and is not read: the gateway needs the flag --opaque-secrets for the key auth of other Secrets than those for TLS", shorten(key.String()))
	}
	users, err := readUsers(secret, asked.Map)
	if err != nil {
		return refuse("InvalidSecret", "Secret %s %v", key, err)
	}
	return users, nil
}

// readUsers reads the users of a Secret. Its errors have nothing of what is in the Secret.
func readUsers(secret *corev1.Secret, isMap bool) ([]auth.User, error) {
	var lines []string
	if isMap {
		for _, user := range slices.Sorted(maps.Keys(secret.Data)) {
			lines = append(lines, user+":"+strings.TrimSpace(string(secret.Data[user])))
		}
	} else {
		if len(secret.Data["auth"]) == 0 {
			return nil, fmt.Errorf("has no key auth; for a key for each user set %sauth-secret-type to auth-map", nginx.Prefix)
		}
		lines = strings.Split(string(secret.Data["auth"]), "\n")
	}
	var out []auth.User
	seen := map[string]bool{}
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !isMap {
			hash, _, _ = strings.Cut(hash, ":") // a comment follows
		}
		if !ok || user == "" || !utf8.ValidString(line) || strings.ContainsFunc(user, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
			return nil, fmt.Errorf("has no user and hash in line %d", i+1)
		}
		if err := htpasswd.Check(hash); err != nil {
			return nil, fmt.Errorf("has in line %d %w", i+1, err)
		}
		if seen[user] {
			continue // nginx takes the first one, too
		}
		seen[user] = true
		out = append(out, auth.User{Name: user, Hash: hash})
	}
	switch {
	case len(out) == 0:
		return nil, fmt.Errorf("has no user")
	case len(out) > mostUsers:
		return nil, fmt.Errorf("has more than %d users", mostUsers)
	}
	return out, nil
}

// forEnvoy writes users as Envoy takes them, which compares {SHA} and nothing else; false if others are among them.
func forEnvoy(users []auth.User) (string, bool) {
	var out strings.Builder
	for _, u := range users {
		sha, ok := strings.CutPrefix(u.Hash, "{SHA}")
		if password, plain := strings.CutPrefix(u.Hash, "{PLAIN}"); plain {
			sum := sha1.Sum([]byte(password))
			sha, ok = base64.StdEncoding.EncodeToString(sum[:]), true
		}
		if !ok {
			return "", false
		}
		fmt.Fprintf(&out, "%s:{SHA}%s\n", u.Name, sha)
	}
	return out.String(), true
}
