package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/lab/topology"
)

const (
	shopHost = "shop.example.com"
	blogHost = "blog.example.com"
)

// ask asks the VIP for a URL from the client.
func (d *demo) ask(ctx context.Context, url string) (*answer, error) {
	port := uint16(443)
	if strings.HasPrefix(url, "http://") {
		port = 80
	}
	return get(ctx, d.lab.Namespace(topology.Client), url, netip.AddrPortFrom(d.vip, port), d.roots)
}

// askFor asks and wants a status.
func (d *demo) askFor(ctx context.Context, url string, status int) (*answer, error) {
	a, err := d.ask(ctx, url)
	if err != nil {
		return nil, err
	}
	if a.status != status {
		return nil, fmt.Errorf("status %d from %s, want %d", a.status, a.who(), status)
	}
	return a, nil
}

// fromPod asks and wants 200 from a pod of a Deployment.
func (d *demo) fromPod(ctx context.Context, url, deployment string) (*answer, error) {
	a, err := d.askFor(ctx, url, http.StatusOK)
	if err == nil && !strings.HasPrefix(a.echo.Pod, deployment+"-") {
		err = fmt.Errorf("answered by %s, want a pod of %s", a.who(), deployment)
	}
	return a, err
}

// showRequests asks what a browser would.
func (d *demo) showRequests(ctx context.Context) {
	if !d.vip.IsValid() {
		d.result("requests", "", 0, errors.New("there is no VIP"))
		return
	}
	d.check("http://"+shopHost+"/", func() (string, error) {
		a, err := d.askFor(ctx, "http://"+shopHost+"/", http.StatusPermanentRedirect)
		if err == nil && a.location != "https://"+shopHost+"/" {
			err = fmt.Errorf("308 to %q", a.location)
		}
		if err != nil {
			return "", err
		}
		return "308 to " + a.location, nil
	})
	d.check("https://"+shopHost+"/, again and again", func() (string, error) { return d.bothNodes(ctx) })
	d.check("https://"+shopHost+"/cart", func() (string, error) {
		a, err := d.fromPod(ctx, "https://"+shopHost+"/cart", "cart")
		if err != nil {
			return "", err
		}
		return "200 from another Service: " + a.who(), nil
	})
	d.check("https://"+blogHost+"/", func() (string, error) {
		a, err := d.fromPod(ctx, "https://"+blogHost+"/", "blog")
		if err == nil && !slices.Equal(a.names, []string{blogHost}) {
			err = fmt.Errorf("the certificate is for %v", a.names)
		}
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("200 from %s, with the certificate of %v", a.who(), a.names), nil
	})
	d.check("http://unknown.example.com/", func() (string, error) {
		_, err := d.askFor(ctx, "http://unknown.example.com/", http.StatusNotFound)
		return "404, nobody serves this host", err
	})
	d.check("https://"+shopHost+"/soon", func() (string, error) {
		_, err := d.askFor(ctx, "https://"+shopHost+"/soon", http.StatusServiceUnavailable)
		return "503, its Service has no endpoints", err
	})
	d.check("what the pod knows of the client", func() (string, error) {
		a, err := d.fromPod(ctx, "https://"+shopHost+"/", "web")
		if err != nil {
			return "", err
		}
		got, want := a.echo.Headers.Get("X-Forwarded-For"), topology.ClientAddress().String()
		if got != want {
			return "", fmt.Errorf("X-Forwarded-For is %q, want %s", got, want)
		}
		return "X-Forwarded-For: " + got + ", the client's own address", nil
	})
}

// bothNodes asks until pods on two nodes have answered.
func (d *demo) bothNodes(ctx context.Context) (string, error) {
	byPod := map[string]int{}
	nodes := map[string]bool{}
	var names []string
	const most = 50
	for i := range most {
		a, err := d.fromPod(ctx, "https://"+shopHost+"/", "web")
		if err != nil {
			return "", fmt.Errorf("request %d: %w", i+1, err)
		}
		byPod[a.who()]++
		nodes[a.echo.Node] = true
		names = a.names
		if i >= 9 && len(nodes) >= 2 {
			break
		}
	}
	if len(nodes) < 2 {
		return "", fmt.Errorf("%d requests were all answered on %v", most, slices.Collect(maps.Keys(nodes)))
	}
	return fmt.Sprintf("200, certificate of %v verified, answered by %s", names, strings.Join(slices.Sorted(maps.Keys(byPod)), ", ")), nil
}

// showEdit edits an Ingress and waits for another answer.
func (d *demo) showEdit(ctx context.Context) {
	const (
		before = "                name: cart\n                port:\n                  number: 80\n"
		after  = "                name: web\n                port:\n                  number: 80\n"
	)
	url := "https://" + shopHost + "/cart"
	edit := func(asked, old, replacement, want string) {
		d.check(asked, func() (string, error) {
			started := time.Now()
			if err := d.edit("shop.yaml", old, replacement); err != nil {
				return "", err
			}
			for time.Since(started) < 10*time.Second && ctx.Err() == nil {
				a, err := d.askFor(ctx, url, http.StatusOK)
				if err != nil {
					return "", err
				}
				if strings.HasPrefix(a.echo.Pod, want+"-") {
					return fmt.Sprintf("answered by %s %d ms after the file was saved", a.who(), time.Since(started).Milliseconds()), nil
				}
				time.Sleep(5 * time.Millisecond)
			}
			return "", errors.New("nothing changed within 10 s")
		})
	}
	edit("/cart goes to Service web instead of cart", before, after, "web")
	edit("and back to cart", after, before, "cart")
}
