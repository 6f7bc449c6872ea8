package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A row is one figure: what was measured of a subject, how often, and the spread.
type row struct {
	Bench     string  `json:"bench"`
	What      string  `json:"what"` // with the unit at the end
	Subject   subject `json:"subject"`
	Services  int     `json:"services"`
	Endpoints int     `json:"endpoints"` // of each Service
	Count     int     `json:"count"`     // of values
	Median    float64 `json:"median"`
	P10       float64 `json:"p10"`
	P90       float64 `json:"p90"`
	P99       float64 `json:"p99"`
	Max       float64 `json:"max"`
	Commit    string  `json:"commit"`
	Load      string  `json:"load"` // of the machine, over the last minute
	At        string  `json:"at"`
	Partial   bool    `json:"partial,omitempty"` // it was stopped by an error, and is measured again by the next run
}

// A measurement is what a row is about.
type measurement struct {
	bench, what         string
	subject             subject
	services, endpoints int
}

func (r row) of() measurement {
	return measurement{r.Bench, r.What, r.Subject, r.Services, r.Endpoints}
}

// newRow makes a row of values, which it sorts.
func newRow(m measurement, values []float64) row {
	slices.Sort(values)
	return row{Bench: m.bench, What: m.what, Subject: m.subject, Services: m.services, Endpoints: m.endpoints, Count: len(values),
		Median: quantile(values, 0.5), P10: quantile(values, 0.1), P90: quantile(values, 0.9), P99: quantile(values, 0.99), Max: quantile(values, 1)}
}

// quantile is the share q of sorted values, between the two nearest.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	at := q * float64(len(values)-1)
	low := int(at)
	high := min(low+1, len(values)-1)
	return values[low] + (at-float64(low))*(values[high]-values[low])
}

// results are the rows of a file, to which new ones are appended.
type results struct {
	path, commit string
	rows         []row
}

func openResults(path, commit string) (*results, error) {
	r := &results{path: path, commit: commit}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var one row
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("read results: %w", err)
		}
		r.rows = append(r.rows, one)
	}
	return r, nil
}

// has says whether there is a row of a benchmark's figures about a size and a subject, of this commit; an empty subject is
// any.
func (r *results) has(bench string, services int, who subject) bool {
	return slices.ContainsFunc(r.rows, func(o row) bool {
		return o.Bench == bench && o.Services == services && o.Commit == r.commit && !o.Partial && (who == "" || o.Subject == who)
	})
}

// add appends one row.
func (r *results) add(m measurement, values []float64) error { return r.append(newRow(m, values)) }

// append appends one row, with what is the same in all of this run.
func (r *results) append(one row) error {
	load, _ := os.ReadFile("/proc/loadavg")
	one.Load, _, _ = strings.Cut(string(load), " ")
	one.Commit, one.At = r.commit, time.Now().UTC().Format(time.RFC3339)
	fmt.Printf("%-8s %6d  %-20s %-44s n=%-6d median %-10.4g p10 %-10.4g p90 %-10.4g p99 %-10.4g max %.4g\n", one.Bench, one.Services, one.Subject, one.What,
		one.Count, one.Median, one.P10, one.P90, one.P99, one.Max)
	line, err := json.Marshal(one)
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	r.rows = append(r.rows, one)
	return errors.Join(err, f.Close())
}

// table is the newest row of each measurement, for people.
func (r *results) table() string {
	newest := map[measurement]row{}
	for _, one := range r.rows {
		newest[one.of()] = one
	}
	var all []row
	for _, one := range newest {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b row) int {
		return cmp.Or(strings.Compare(a.Bench, b.Bench), strings.Compare(a.What, b.What), cmp.Compare(a.Services, b.Services),
			cmp.Compare(a.Endpoints, b.Endpoints), strings.Compare(string(a.Subject), string(b.Subject)))
	})
	var b strings.Builder
	b.WriteString("# The Service datapath in numbers\n\nMade by `make bench-services` from services-bench.jsonl: the newest row of each measurement. " +
		"`conformance/bench/doc.go` says how each is measured. Both subjects run on the same machine in turns; what else ran there is in the column load.\n")
	bench := ""
	for _, one := range all {
		if one.Bench != bench {
			bench = one.Bench
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| what | Services | endpoints each | subject | median | p10 | p90 | p99 | max | values | load | commit |\n|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|---|\n", bench, about(bench))
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %.4g | %.4g | %.4g | %.4g | %.4g | %d | %s | %s |\n", one.What, one.Services, one.Endpoints, one.Subject,
			one.Median, one.P10, one.P90, one.P99, one.Max, one.Count, one.Load, one.Commit)
	}
	return b.String()
}

// write writes the table beside the rows.
func (r *results) write() error {
	path := strings.TrimSuffix(r.path, filepath.Ext(r.path)) + ".md"
	if err := os.WriteFile(path, []byte(r.table()), 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}
