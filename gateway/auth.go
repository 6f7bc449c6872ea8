package gateway

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

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
			r.users, r.refused = r.basicAuth(func(key model.Key) *corev1.Secret {
				_, _ = read(key) // remembers that the Secret was looked for
				return x.snapshot.Secrets[key]
			})
		})
		if fault != nil {
			r.refused = &refusal{fault[0].Reason, fault[0].Message}
		}
		problems = append(problems, fault...)
	}
	return problems
}

func (r *request) basicAuth(find func(model.Key) *corev1.Secret) (*BasicAuth, *refusal) {
	asked := r.asked.Basic
	const annotation = "annotation " + nginx.Prefix + "auth-secret: "
	refuse := func(reason, format string, args ...any) (*BasicAuth, *refusal) {
		return nil, &refusal{reason, annotation + fmt.Sprintf(format, args...)}
	}
	key := model.Key{Namespace: r.key.Namespace, Name: asked.Secret}
	if namespace, name, ok := strings.Cut(asked.Secret, "/"); ok {
		key = model.Key{Namespace: namespace, Name: name}
	}
	switch {
	case key.Name == "":
		return refuse("SecretNotFound", "it is missing; name a Secret with users and hashes of their passwords")
	case key.Namespace != r.key.Namespace:
		return refuse("ReferenceNotAllowed", "Secret %s is in another namespace; copy it into namespace %s", shorten(key.String()), r.key.Namespace)
	}
	secret := find(key)
	if secret == nil {
		return refuse("SecretNotFound", "Secret %s does not exist; or it does and is not read: the gateway needs the flag --opaque-secrets for the key auth of other Secrets than those for TLS", shorten(key.String()))
	}
	users, err := readUsers(secret, asked.Map)
	if err != nil {
		return refuse("InvalidSecret", "Secret %s %v", key, err)
	}
	return &BasicAuth{Users: users, Realm: asked.Realm}, nil
}

// readUsers writes the users of a Secret anew. Its errors have nothing of what is in the Secret.
func readUsers(secret *corev1.Secret, isMap bool) (string, error) {
	var lines []string
	if isMap {
		for _, user := range slices.Sorted(maps.Keys(secret.Data)) {
			lines = append(lines, user+":"+strings.TrimSpace(string(secret.Data[user])))
		}
	} else {
		if len(secret.Data["auth"]) == 0 {
			return "", fmt.Errorf("has no key auth; for a key for each user set %sauth-secret-type to auth-map", nginx.Prefix)
		}
		lines = strings.Split(string(secret.Data["auth"]), "\n")
	}
	var out strings.Builder
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
		if !ok || user == "" || strings.ContainsFunc(user, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
			return "", fmt.Errorf("has no user and hash in line %d", i+1)
		}
		sha, err := shaOf(hash)
		if err != nil {
			return "", fmt.Errorf("has in line %d %w", i+1, err)
		}
		if seen[user] {
			continue // nginx takes the first one, too
		}
		seen[user] = true
		fmt.Fprintf(&out, "%s:{SHA}%s\n", user, sha)
	}
	switch {
	case len(seen) == 0:
		return "", fmt.Errorf("has no user")
	case len(seen) > mostUsers:
		return "", fmt.Errorf("has more than %d users", mostUsers)
	}
	return out.String(), nil
}

// shaOf returns the SHA-1 of a password in base64, from a hash of htpasswd. It is the one kind that Envoy can compare.
func shaOf(hash string) (string, error) {
	if sha, ok := strings.CutPrefix(hash, "{SHA}"); ok {
		if raw, err := base64.StdEncoding.DecodeString(sha); err != nil || len(raw) != sha1.Size {
			return "", fmt.Errorf("a {SHA} hash that is none")
		}
		return sha, nil
	}
	if password, ok := strings.CutPrefix(hash, "{PLAIN}"); ok && password != "" {
		sum := sha1.Sum([]byte(password))
		return base64.StdEncoding.EncodeToString(sum[:]), nil
	}
	kind := "an unknown kind"
	for prefix, name := range map[string]string{
		"$2": "bcrypt", "$apr1$": "MD5", "$1$": "MD5", "$5$": "SHA-256", "$6$": "SHA-512", "{SSHA}": "salted SHA",
	} {
		if strings.HasPrefix(hash, prefix) {
			kind = name
		}
	}
	return "", fmt.Errorf("a hash of %s, which Envoy cannot compare; make it by htpasswd -s, with a long random password", kind)
}
