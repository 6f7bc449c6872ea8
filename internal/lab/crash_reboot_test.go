package lab_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hythe.dev/hythe/internal/lab"
)

// anonymous is a kernel without what is new after a boot: numbers, names and MACs of pods' links, and which pod has
// which of the addresses.
func anonymous(kernel string) string {
	text := unordered(kernel)
	for _, r := range [][2]string{
		{`hyt[0-9a-f]{11}`, "VETH"},
		{`(?m)^\d+: `, ""},
		{`@if\d+`, "@if"},
		{`([0-9a-f]{2}:){5}[0-9a-f]{2}`, "MAC"},
		{`fe80::[0-9a-f:]+`, "LINKLOCAL"},
		{`10\.244\.(\d)\.[1-9]\d*`, "10.244.$1.POD"},
		{`link-netnsid \d+`, "link-netnsid N"},
		{`(promiscuity|allmulti|numtxqueues|numrxqueues|qlen) \d+`, ""},
	} {
		text = regexp.MustCompile(r[0]).ReplaceAllString(text, r[1])
	}
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// leases returns the addresses that the plugin has given on a node.
func leases(t *testing.T, l lab.Lab, node string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(l.Dir, "nodes", node, "data", "cni", "leases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var given struct {
		Leases []struct {
			Addresses []string `json:"addresses"`
		} `json:"leases"`
	}
	if err := json.Unmarshal(data, &given); err != nil {
		t.Errorf("leases of %s: %v", node, err)
	}
	var out []string
	for _, lease := range given.Leases {
		out = append(out, lease.Addresses...)
	}
	slices.Sort(out)
	return out
}

// The power of one node after the other goes off and on, and then of all at once. Each time all comes back by itself, and
// no address is lost.
func (c *crashes) reboot(t *testing.T) {
	for _, nodes := range [][]string{{"node1"}, {"node2"}, {"node3"}, nodeNames} {
		t.Run(strings.Join(nodes, "+"), func(t *testing.T) {
			owner, at := c.owner(t), time.Now()
			var wg sync.WaitGroup
			for _, n := range nodes {
				wg.Go(func() {
					if err := c.client.Reboot(t.Context(), n); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			st := c.settle(t)
			c.answered(t, time.Now())
			_, lost := c.traffic.vip.since(at)
			c.note(t, "Power of %s off and on (VIP on %s): ready after %d ms, the VIP without an answer for %d ms, %d requests lost.",
				strings.Join(nodes, ", "), owner, time.Since(at).Milliseconds(), c.traffic.vip.outage(at, time.Now()).Milliseconds(), len(lost))
			for _, n := range nodeNames {
				var want []string
				for _, p := range st.Pods {
					if p.Node == n {
						want = append(want, p.Address)
					}
				}
				slices.Sort(want)
				if got := leases(t, c.lab, n); !slices.Equal(got, want) {
					t.Errorf("addresses given on %s: %v, its pods have %v", n, got, want)
				}
				was, is := anonymous(c.first[n]), anonymous(kernel(t, c.lab, n))
				for end := time.Now().Add(settleLimit); was != is && time.Now().Before(end); is = anonymous(kernel(t, c.lab, n)) {
					time.Sleep(100 * time.Millisecond) // the kernel tries its own IPv6 addresses for a second or two
				}
				if was != is {
					t.Errorf("the kernel of %s is not what it was at first:\n%s", n, changed(was, is))
				}
			}
		})
	}
}
