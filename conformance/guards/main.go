// Command guards takes out, one by one, the code that guards against a fault, and sees the fault's test fail.
//
//	go run ./conformance/guards [-v] [FILE...]      default: conformance/guards/*.txt
//
// Nothing of the working tree is changed: the go command's -overlay replaces a file for one build. Entries:
//
//	fault: what goes wrong in the world, in one line
//	file: path of the Go file with the guard
//	test: ./package TestName/subtest             run as go test -run; more than one line runs more than one
//	env: NAME=VALUE                              optional, LAB=strict is always set
//	<<<
//	the guarding lines, exactly once in the file
//	===
//	what stands there instead, may be empty
//	>>>
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

type guard struct {
	source            string // file and line of the entry
	fault, file       string
	tests, env        []string
	original, without string
}

func main() {
	verbose := flag.Bool("v", false, "print the output of each failing test")
	only := flag.String("run", "", "only faults that match this regular expression")
	flag.Parse()
	files := flag.Args()
	if len(files) == 0 {
		files, _ = filepath.Glob("conformance/guards/*.txt")
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fatal(err)
	}
	bad, total := 0, 0
	for _, name := range files {
		guards, err := parse(name)
		if err != nil {
			fatal(err)
		}
		for _, g := range guards {
			if !pattern.MatchString(g.fault) {
				continue
			}
			total++
			start := time.Now()
			output, err := g.check()
			verdict := "guarded"
			if err != nil {
				bad++
				verdict = "NOT GUARDED: " + err.Error()
			}
			fmt.Printf("%-60s %-28s %5.1fs  %s\n", g.fault, g.file, time.Since(start).Seconds(), verdict)
			if *verbose || err != nil {
				fmt.Println(strings.TrimSpace(output))
			}
		}
	}
	fmt.Printf("%d of %d guards hold: a test fails without each of them\n", total-bad, total)
	if bad > 0 {
		os.Exit(1)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "guards:", err)
	os.Exit(2)
}

// check returns nil if each test passes with the guard's file as it is, and fails without the guard.
func (g guard) check() (string, error) {
	text, err := os.ReadFile(g.file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), g.original); n != 1 {
		return "", fmt.Errorf("%s: the guard stands %d times in %s, want once", g.source, n, g.file)
	}
	dir, err := os.MkdirTemp("", "guards-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	replaced := filepath.Join(dir, filepath.Base(g.file))
	if err := os.WriteFile(replaced, []byte(strings.Replace(string(text), g.original, g.without, 1)), 0o644); err != nil {
		return "", err
	}
	path, err := filepath.Abs(g.file)
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	data, _ := json.Marshal(map[string]map[string]string{"Replace": {path: replaced}})
	if err := os.WriteFile(overlay, data, 0o644); err != nil {
		return "", err
	}
	var all bytes.Buffer
	for _, test := range g.tests {
		pkg, run, ok := strings.Cut(test, " ")
		if !ok {
			return "", fmt.Errorf("%s: test %q is not PACKAGE NAME", g.source, test)
		}
		binary := filepath.Join(dir, "test")
		if out, err := g.command("go", "test", "-c", "-o", binary, "-overlay", overlay, pkg).CombinedOutput(); err != nil {
			return string(out), errors.New("without the guard it does not build: " + test)
		}
		cmd := g.command(binary, "-test.run", anchored(run), "-test.v", "-test.timeout", "3m")
		cmd.Dir = pkg
		cmd.Env = append(cmd.Env, strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)) // for what the test builds itself
		out, err := cmd.CombinedOutput()
		all.Write(out)
		switch {
		case !bytes.Contains(out, []byte("=== RUN")):
			return all.String(), errors.New("no such test: " + test)
		case bytes.Contains(out, []byte("--- SKIP")):
			return all.String(), errors.New("the test was skipped: " + test)
		case err == nil:
			return all.String(), errors.New("the test passes without the guard: " + test)
		}
	}
	return all.String(), nil
}

func (g guard) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(append(os.Environ(), "LAB=strict"), g.env...)
	return cmd
}

// anchored makes a -run pattern that matches each level of the name exactly.
func anchored(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(strings.ReplaceAll(p, " ", "_")) + "$"
	}
	return strings.Join(parts, "/")
}

func parse(name string) ([]guard, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var out []guard
	g := guard{}
	var block *strings.Builder
	var original, without strings.Builder
	for i, line := range strings.Split(string(text), "\n") {
		where := fmt.Sprintf("%s:%d", name, i+1)
		key, value, _ := strings.Cut(line, ": ")
		switch {
		case block == &original && line == "===":
			block = &without
		case block == &without && line == ">>>":
			g.original, g.without = original.String(), without.String()
			if g.fault == "" || g.file == "" || len(g.tests) == 0 || g.original == "" {
				return nil, fmt.Errorf("%s: an entry wants fault, file, test and the guarding lines", g.source)
			}
			out = append(out, g)
			g, block = guard{}, nil
			original.Reset()
			without.Reset()
		case block != nil:
			block.WriteString(line + "\n")
		case line == "<<<":
			block = &original
		case line == "" || strings.HasPrefix(line, "#"):
		case key == "fault":
			g.fault, g.source = value, where
		case key == "file":
			g.file = value
		case key == "test":
			g.tests = append(g.tests, value)
		case key == "env":
			g.env = append(g.env, value)
		default:
			return nil, fmt.Errorf("%s: %q is no line of an entry", where, line)
		}
	}
	if block != nil || g.fault != "" {
		return nil, fmt.Errorf("%s: the last entry does not end", name)
	}
	return out, nil
}
