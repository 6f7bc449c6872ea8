package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/topology"
)

var nodeNames = []string{"node1", "node2", "node3"}

// kernel is all that Hythe has in the kernel of a node, as text: counters aside, and without what the kernel itself
// learns and forgets (neighbours that it asked for).
func kernel(t *testing.T, l lab.Lab, node string) string {
	t.Helper()
	var out strings.Builder
	for _, command := range []string{
		"nft -s list ruleset", "ip -d -o link show", "ip -o address show", "ip route show table all", "ip rule show",
		"ip neigh show nud permanent", "bridge fdb show",
	} {
		text := runIn(t, l.Namespace(node), strings.Fields(command)...)
		if strings.HasPrefix(command, "nft") {
			text = sortElements(text)
		}
		fmt.Fprintf(&out, "# %s\n%s\n", command, text)
	}
	err := topology.Do(l.Namespace(node), func() error {
		for _, name := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv4/conf/hythe.vxlan/rp_filter"} {
			data, err := os.ReadFile("/proc/sys/" + name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%s %s", name, data)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return out.String()
}

func runIn(t *testing.T, ns string, command ...string) string {
	t.Helper()
	var out []byte
	err := topology.Do(ns, func() (err error) {
		out, err = exec.Command(command[0], command[1:]...).Output()
		return err
	})
	if err != nil {
		t.Errorf("%s in %s: %v", strings.Join(command, " "), ns, err)
	}
	return string(out)
}

// sortElements gives the elements of sets an order, which the kernel does not, and leaves out who holds the table: that
// ends with the process.
func sortElements(ruleset string) string {
	var out, elements []string
	inside := false
	for line := range strings.Lines(ruleset) {
		line = strings.TrimRight(line, " \n")
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "elements = {"); ok {
			inside, line = true, rest
		}
		if !inside {
			if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "flags owner") || strings.HasPrefix(trimmed, "flags persist") {
				continue
			}
			line, _, _ = strings.Cut(line, " # progname")
			out = append(out, line)
			continue
		}
		text, ends := strings.CutSuffix(line, "}")
		for e := range strings.SplitSeq(text, ",") {
			if e = strings.TrimSpace(e); e != "" {
				elements = append(elements, "\t\t\t"+e)
			}
		}
		if ends {
			slices.Sort(elements)
			out, elements, inside = append(out, elements...), nil, false
		}
	}
	return strings.Join(out, "\n")
}

var (
	index     = regexp.MustCompile(`\. 0x[0-9a-f]+ :`)
	pickChain = regexp.MustCompile(`(?m)^\t(?:chain|map) pick[^\n]*\{\n(\t\t[^\n]*\n)*\t\}\n\n?`)
	blank     = regexp.MustCompile(`\n\n+`)
)

// unordered is a kernel without what depends on the past: the order of endpoints, and chains, and what leads to them, that
// pick one of as many endpoints as some Service once had.
func unordered(kernel string) string {
	text := blank.ReplaceAllString(pickChain.ReplaceAllString(index.ReplaceAllString(kernel, ". any :"), ""), "\n")
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// kernels is the kernel of each node.
func kernels(t *testing.T, l lab.Lab) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, n := range nodeNames {
		out[n] = kernel(t, l, n)
	}
	return out
}

// changed lists lines of b that are not in a, and the other way round.
func changed(a, b string) string {
	count := map[string]int{}
	for line := range strings.Lines(a) {
		count[line]--
	}
	for line := range strings.Lines(b) {
		count[line]++
	}
	var out []string
	for line, n := range count {
		if n != 0 {
			out = append(out, fmt.Sprintf("%+d %s", n, strings.TrimSpace(line)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// A monitor notes what is written to the kernel of a node.
type monitor struct {
	mu    sync.Mutex
	lines []string
}

// monitors starts one for each node; they end with the test.
func monitors(t *testing.T, l lab.Lab) map[string]*monitor {
	t.Helper()
	out := map[string]*monitor{}
	for _, n := range nodeNames {
		m := &monitor{}
		out[n] = m
		m.start(t, l.Namespace(n), []string{"nft", "monitor"}, func(line string) bool {
			// A batch that changes nothing has a generation, too: who writes one without need is to be seen.
			return line != "" && !strings.HasPrefix(line, "#") || strings.Contains(line, "(hythe)")
		})
		m.start(t, l.Namespace(n), []string{"ip", "-o", "monitor", "link", "address", "route", "rule"}, func(string) bool { return true })
		m.start(t, l.Namespace(n), []string{"ip", "-o", "monitor", "neigh"}, func(line string) bool { return strings.Contains(strings.ToLower(line), "permanent") })
	}
	return out
}

func (m *monitor) start(t *testing.T, ns string, command []string, wanted func(string) bool) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: 0}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := topology.Start(ns, cmd); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		scanner := bufio.NewScanner(pipe)
		for scanner.Scan() {
			if line := strings.TrimSpace(scanner.Text()); wanted(line) {
				m.mu.Lock()
				m.lines = append(m.lines, line)
				m.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
}

// take returns what was noted since the last call.
func (m *monitor) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.lines
	m.lines = nil
	return out
}

// files are all files that Hythe keeps, each with what changes when it is replaced.
func files(t *testing.T, l lab.Lab) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, root := range []string{l.State(), filepath.Join(l.Dir, "nodes")} {
		err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			// Sockets are made anew by each process; the runtime's cache is not ours.
			if err != nil || !e.Type().IsRegular() || strings.Contains(path, "/cache/") {
				return ignoreGone(err)
			}
			info, err := e.Info()
			if err != nil {
				return ignoreGone(err)
			}
			name, _ := filepath.Rel(l.Dir, path)
			out[name] = fmt.Sprintf("inode %d, %s, %d bytes", info.Sys().(*syscall.Stat_t).Ino, info.ModTime().Format(time.StampMicro), info.Size())
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	return out
}

func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// written lists the files that were replaced, made or removed.
func written(before, after map[string]string) []string {
	var out []string
	for name, is := range after {
		if before[name] != is {
			out = append(out, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			out = append(out, name+" (removed)")
		}
	}
	slices.Sort(out)
	return out
}

// metric sums a metric of a process over its labels.
func metric(ctx context.Context, l lab.Lab, process, name string) (float64, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", l.Admin(process))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lab/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	sum := 0.0
	scanner := bufio.NewScanner(resp.Body)
	for scanner.Scan() {
		line := scanner.Text()
		base, _, _ := strings.Cut(line, "{")
		if base, _, _ = strings.Cut(base, " "); base == name {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				return 0, err
			}
			sum += v
		}
	}
	return sum, scanner.Err()
}
