package htpasswd

import (
	"strings"
	"testing"
)

// The hashes are by openssl passwd and htpasswd; two by the examples of SHA-crypt.txt.
var known = []struct{ hash, password string }{
	{"$apr1$saltsalt$HIDXe7D36X22w1CH4M1cQ.", "open sesame"},
	{"$1$saltsalt$Yo6tRKYGO/jWyb1etwHDS/", "open sesame"},
	{"$5$saltsalt$yrhPKxCqiWcCE9h0g86j6Ugz7SDFdFm.BjU.d8RaQnC", "open sesame"},
	{"$6$saltsalt$e/5XKibXPLqVcfjpD.ouauaJrAOL5V0uo80Lt7n7EbRdRiCx3HbQ90yjOHr.G0T.mx79PEMRy8nmtr0qSYhQp1", "open sesame"},
	{"$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"},
	{"$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.", "Hello world!"},
	{"$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", ""},
	{"{SHA}X8fji//gDKRq3YkUVGSi6vdZ1cI=", "open"},
	{"{PLAIN}secret", "secret"},
}

func TestVerify(t *testing.T) {
	for _, k := range known {
		if err := Check(k.hash); err != nil {
			t.Errorf("%s: %v", k.hash, err)
		}
		if k.password != "" && !Verify(k.hash, k.password) {
			t.Errorf("%s is not of %q", k.hash, k.password)
		}
		for _, other := range []string{"", "x", k.password + "x", strings.ToUpper(k.password) + "!", strings.Repeat("x", MaxPassword+1)} {
			if Verify(k.hash, other) {
				t.Errorf("%s is of %q, too", k.hash, other)
			}
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for _, hash := range []string{
		"", "x", "abJnggxhB/yWI", "{SHA}", "{SHA}eA==", "{SSHA}X8fji//gDKRq3YkUVGSi6vdZ1cI=", "{PLAIN}", "$2y$", "$2y$10$short",
		"$2y$15$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", "$apr1$", "$apr1$toolongsalt$HIDXe7D36X22w1CH4M1cQ.",
		"$apr1$saltsalt$short", "$1$$", "$5$", "$6$salt$x", "$6$rounds=9$saltsalt$" + strings.Repeat("a", 86),
		"$6$rounds=999999999$saltsalt$" + strings.Repeat("a", 86), "$7$x",
	} {
		if Check(hash) == nil {
			t.Errorf("%q is taken", hash)
		} else if Verify(hash, "x") {
			t.Errorf("%q is of a password", hash)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, k := range known {
		if !strings.HasPrefix(k.hash, "$2") { // they take too long
			f.Add(k.hash, k.password)
		}
	}
	f.Fuzz(func(t *testing.T, hash, password string) {
		if strings.HasPrefix(hash, "$2") {
			hash = hash[1:]
		}
		err := Check(hash)
		if ok := Verify(hash, password); ok && err != nil {
			t.Errorf("%q is refused and matches", hash)
		}
		if err != nil && len(hash) > 12 && strings.Contains(err.Error(), hash) {
			t.Errorf("the error has the hash: %v", err)
		}
	})
}
