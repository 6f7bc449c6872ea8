package nginx

import (
	"fmt"
	"strings"
)

// Page is the documentation of all annotations, as Markdown.
func Page() string {
	counts := map[Support]int{}
	for _, k := range table {
		counts[k.Support]++
	}
	var b strings.Builder
	b.WriteString("# Annotations of ingress-nginx\n\n" +
		"This page is written by `go test ./gateway/nginx -run TestDocs -update` from the table that the gateway itself reads\n" +
		"(`gateway/nginx/keys.go`). All names have the prefix `" + Prefix + "`; the older `" + legacyPrefix + "` is\n" +
		"read where the newer is absent. `hythe translate --from nginx DIR` says the same of your own manifests, line by line.\n\n" +
		"| taken | annotations | |\n|---|---|---|\n")
	for _, s := range []struct {
		support Support
		meaning string
	}{
		{Full, "as ingress-nginx takes it"},
		{Nearest, "what is nearest to it; the table says what differs"},
		{Safe, "what is meant by it, without a danger that it has in nginx; the table says what differs"},
		{Needless, "nothing has to be done for it here"},
		{Refused, "no effect, and the Ingress gets an Event; the table says what to do instead"},
		{NotYet, "no effect yet, and the Ingress gets an Event"},
	} {
		if counts[s.support] > 0 {
			fmt.Fprintf(&b, "| %s | %d | %s |\n", s.support, counts[s.support], s.meaning)
		}
	}
	b.WriteString("\nWhat restricts who may come in is never left out: where such an annotation cannot be read, or is not supported, the paths of\n" +
		"its Ingress answer 503 until it is mended. The table calls these \"protects\".\n\n")
	b.WriteString(Table())
	return b.String()
}
