package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/lab/load"
	"hythe.dev/hythe/internal/lab/topology"
)

const (
	updates     = 5
	minRequests = 10_000
	minRate     = 300
	// loadRate leaves room above the least rate.
	loadRate    = 400
	updateLimit = 40 * time.Second
)

// showUpdates rolls Deployment web from v1 to v2 and back while a client asks all the time.
func (d *demo) showUpdates(ctx context.Context) {
	if !d.vip.IsValid() {
		d.result("rolling updates", "", 0, errors.New("there is no VIP"))
		return
	}
	client := &load.Client{
		Namespace: d.lab.Namespace(topology.Client), To: netip.AddrPortFrom(d.vip, 443), Host: shopHost, Path: "/", Roots: d.roots, Rate: loadRate,
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan load.Tally, 1)
	started := time.Now()
	go func() { ended <- client.Run(loading) }()
	versions := []string{"v1", "v2"}
	for i := range updates {
		from, to := versions[i%2], versions[(i+1)%2]
		ok := d.check(fmt.Sprintf("update %d, web %s to %s", i+1, from, to), func() (string, error) {
			return d.update(ctx, from, to)
		})
		if !ok {
			break
		}
	}
	for time.Since(started) < minRequests*time.Second/loadRate+time.Second && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
	stop()
	t := <-ended
	took := time.Since(started)
	answer, err := judge(t, took)
	d.result("requests meanwhile", answer, took, err)
	for _, lost := range t.Lost[:min(5, len(t.Lost))] {
		d.note("lost: %s", lost)
	}
}

func judge(t load.Tally, took time.Duration) (string, error) {
	rate := float64(t.Requests()) / took.Seconds()
	text := fmt.Sprintf("%d at %.0f a second (%s), answered by %s; lost %d; half within %.1f ms, 99 %% within %.1f ms, all within %.0f ms",
		t.Requests(), rate, counts(t.ByProtocol), counts(t.ByVersion), len(t.Lost),
		ms(t.Quantile(0.5)), ms(t.Quantile(0.99)), ms(t.Quantile(1)))
	switch {
	case len(t.Lost) > 0, rate < minRate, t.Requests() < minRequests, len(t.ByVersion) < 2:
		return "", errors.New(text)
	}
	return text, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// update changes the image of Deployment web and waits until only new pods are left.
func (d *demo) update(ctx context.Context, from, to string) (string, error) {
	const image = "        - name: web\n          image: hythe.dev/echo:"
	if err := d.edit("shop.yaml", image+from, image+to); err != nil {
		return "", err
	}
	deadline := time.Now().Add(updateLimit)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		st, err := d.client.Status(ctx)
		if err != nil {
			return "", err
		}
		var pods []string
		done := len(st.Waiting) == 0
		for _, p := range st.Pods {
			if p.Owner == "web" {
				pods = append(pods, p.Name)
				done = done && p.Ready && slices.Contains(p.Images, "hythe.dev/echo:"+to)
			}
		}
		if done && len(pods) == 3 {
			return "now " + strings.Join(pods, ", "), nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", fmt.Errorf("not done within %s", updateLimit)
}

// counts writes a map of counts in a fixed order: "v1 5000, v2 5012".
func counts(m map[string]int) string {
	out := ""
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if out != "" {
			out += ", "
		}
		out += fmt.Sprintf("%s %d", k, m[k])
	}
	return out
}
