package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The ends that a test can have. A test that ran out of time has failed.
const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped"
)

// A result is what came of one test: a line of results/e2e.jsonl.
type result struct {
	// Flavour is the one of the cluster, Commit the version of Hythe (none for the peer), Kubernetes that of the tests.
	Flavour    string `json:"flavour"`
	Commit     string `json:"commit,omitempty"`
	Kubernetes string `json:"kubernetes"`
	Test       string `json:"test"`
	Result     string `json:"result"`
	Seconds    int    `json:"seconds"`
	// Message is the first line of why it failed or was skipped.
	Message string `json:"message,omitempty"`
}

// A run is what all results of one start have in common.
type run struct {
	Flavour, Commit, Kubernetes string
}

// covers tells whether a result counts for this run.
func (r run) covers(got result) bool {
	return got.Flavour == r.Flavour && got.Commit == r.Commit && got.Kubernetes == r.Kubernetes
}

// readResults reads all lines, the oldest first. A last line that was cut off by a crash is no error: its test is run again.
func readResults(path string) ([]result, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []result
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			if !bytes.HasSuffix(raw, []byte("\n")) && bytes.HasSuffix(raw, lines.Bytes()) {
				return out, nil
			}
			return nil, fmt.Errorf("read %s, line %d: %w", path, n, err)
		}
		out = append(out, r)
	}
	return out, lines.Err()
}

// appendResult adds a line, and ends a line before it that was cut off.
func appendResult(path string, r result) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if cut := bytes.LastIndexByte(old, '\n') + 1; cut != len(old) {
		if err := os.Truncate(path, int64(cut)); err != nil {
			return err
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
