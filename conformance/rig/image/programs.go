package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// libraryLine is a line of ldd(1) that names a file.
var libraryLine = regexp.MustCompile(`(?m)^\s*(?:\S+ => )?(/\S+) \(0x`)

// libraries reads the paths in the output of ldd(1).
func libraries(ldd string) []string {
	var out []string
	for _, m := range libraryLine.FindAllStringSubmatch(ldd, -1) {
		out = append(out, m[1])
	}
	return out
}

// Programs returns entries for programs of this machine, in /usr/bin, and for the libraries that they load.
func Programs(names ...string) ([]Entry, error) {
	byPath := map[string]Entry{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("find %s for an image: %w: scripts/setup.sh cluster installs it", name, err)
		}
		byPath["/usr/bin/"+name] = Entry{Path: "/usr/bin/" + name, Source: path}
		out, err := exec.Command("ldd", path).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
			return nil, fmt.Errorf("find the libraries of %s: %w: %s", path, err, out)
		}
		for _, lib := range libraries(string(out)) {
			byPath[lib] = Entry{Path: lib, Source: lib}
		}
	}
	var out []Entry
	for _, e := range byPath {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Applets returns links in /bin to busybox for all that it can do, except those that exist as programs.
func Applets(except ...string) ([]Entry, error) {
	out, err := exec.Command("busybox", "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list what busybox can do: %w", err)
	}
	var entries []Entry
	for name := range strings.FieldsSeq(string(out)) {
		if !slices.Contains(except, name) {
			entries = append(entries, Entry{Path: "/bin/" + name, Link: "/usr/bin/busybox"})
		}
	}
	return entries, nil
}

// Cached writes the image into dir, unless one of the same entries is there, and returns its file. Source files count as
// the same while size and time of change are.
func Cached(dir, name string, img Image) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q %q\n", img.Tags, img.Entrypoint, img.Cmd, img.Env)
	for _, e := range img.Entries {
		fmt.Fprintf(sum, "%q %q %q %q %o", e.Path, e.Source, e.Link, e.Data, e.Mode)
		if e.Source != "" {
			info, err := os.Stat(e.Source)
			if err != nil {
				return "", fmt.Errorf("build image %s: %w", name, err)
			}
			fmt.Fprintf(sum, " %d %d", info.Size(), info.ModTime().UnixNano())
		}
		fmt.Fprintln(sum)
	}
	file := filepath.Join(dir, name+"-"+hex.EncodeToString(sum.Sum(nil))[:16]+".tar")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build image %s: %w", name, err)
	}
	// One version of each is enough.
	old, _ := filepath.Glob(filepath.Join(dir, name+"-*.tar"))
	for _, f := range old {
		os.Remove(f)
	}
	return file, Write(file, img)
}
