package gateway

import (
	"fmt"
	"slices"
	"strings"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/model"
)

// Compression is of the answers of all hosts. To change it changes the listeners.
type Compression struct {
	// Algorithms are what is used, of what the client takes, and the first one if it takes all alike; none for no compression.
	Algorithms []Algorithm
	// Types are the media types that are compressed, and MinBytes the least Content-Length.
	Types    []string
	MinBytes uint32
}

// An Algorithm is a content coding, as in Accept-Encoding.
type Algorithm string

// The algorithms (RFC 7932, RFC 8878, RFC 1952).
const (
	Brotli Algorithm = "br"
	Zstd   Algorithm = "zstd"
	Gzip   Algorithm = "gzip"
)

// compressedTypes are text, and what is written as text. Events (text/event-stream) are none: they would wait in a buffer.
var compressedTypes = []string{
	"application/atom+xml", "application/javascript", "application/json", "application/manifest+json", "application/rss+xml",
	"application/wasm", "application/x-javascript", "application/xhtml+xml", "application/xml", "image/svg+xml", "text/css",
	"text/html", "text/javascript", "text/plain", "text/xml",
}

// String is " br,zstd of text/css,text/html from 256 bytes"; empty for none.
func (c Compression) String() string {
	if len(c.Algorithms) == 0 {
		return ""
	}
	return fmt.Sprintf(" %s of %s from %d bytes", strings.Trim(strings.ReplaceAll(fmt.Sprint(c.Algorithms), " ", ","), "[]"), strings.Join(c.Types, ","), c.MinBytes)
}

// buildCompression reads what is asked for. An algorithm that is none is left out.
func buildCompression(asked *v1alpha1.Compression, from string) (Compression, []model.Problem) {
	if asked == nil {
		return Compression{}, nil
	}
	out := Compression{Types: slices.Sorted(slices.Values(asked.Types)), MinBytes: 256}
	if len(out.Types) == 0 {
		out.Types = compressedTypes
	}
	out.Types = slices.Compact(out.Types)
	if asked.MinBytes > 0 {
		out.MinBytes = uint32(asked.MinBytes)
	}
	var problems []model.Problem
	ref := model.ObjectRef{Kind: "GatewayConfig", Name: from}
	for _, a := range asked.Algorithms {
		switch a := Algorithm(a); {
		case a != Brotli && a != Zstd && a != Gzip:
			problems = append(problems, model.Problemf(ref, "InvalidCompression", "spec.compression.algorithms: %s is none of br, zstd and gzip; it has no effect", quote(string(a))))
		case !slices.Contains(out.Algorithms, a):
			out.Algorithms = append(out.Algorithms, a)
		}
	}
	if len(asked.Algorithms) == 0 {
		out.Algorithms = []Algorithm{Brotli, Zstd, Gzip}
	}
	return out, problems
}
