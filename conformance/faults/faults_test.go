package faults

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestTable wants each test that faults.md names to be there.
func TestTable(t *testing.T) {
	text, err := os.ReadFile("faults.md")
	if err != nil {
		t.Fatal(err)
	}
	list, err := exec.Command("grep", "-rhoE", "--include=*_test.go", "^func (Test|Fuzz)[A-Za-z0-9_]+", "../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for line := range strings.Lines(string(list)) {
		there[strings.TrimSpace(strings.TrimPrefix(line, "func "))] = true
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| fault") {
			continue
		}
		rows++
		names := regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w*`).FindAllString(line, -1)
		if len(names) == 0 && !strings.Contains(line, "| none:") {
			t.Errorf("no test: %s", line)
		}
		for _, name := range names {
			if !there[name] {
				t.Errorf("%s is not there: %s", name, line)
			}
		}
	}
	if rows < 40 {
		t.Errorf("%d rows only", rows)
	}
}
