package nginx

import (
	"fmt"
	"strings"
	"testing"
)

// TestOrigins: a list of which one cannot be compared lets none in. Envoy refuses a host with an expression that is too long.
func TestOrigins(t *testing.T) {
	var many []string
	for i := range mostOrigins + 1 {
		many = append(many, fmt.Sprintf("https://app-%d.example.com", i))
	}
	for name, c := range map[string]struct {
		value string
		good  bool
	}{
		"as many as can be": {strings.Join(many[1:], ","), true},
		"one too many":      {strings.Join(many, ","), false},
		"a long one":        {"https://" + strings.Repeat("a.", 140) + "test", true},
		"one too long":      {"https://app.example.com, https://" + strings.Repeat("a", 2500) + ".test", false},
	} {
		var s Settings
		if err := corsOrigins(&s, c.value); (err == nil) != c.good || s.cors.noOrigin == c.good {
			t.Errorf("%s: %v, nobody is let in: %v", name, err, s.cors.noOrigin)
		} else if err != nil && len(err.Error()) > 400 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}
