// Package drain ends an Envoy so that its clients lose nothing.
//
//	fail ──> /ready answers 503: no new connections are sent here
//	  │      each answer ends its connection: HTTP/1.1 "Connection: close", HTTP/2 GOAWAY
//	  ▼
//	wait until the connections are gone, or only idle ones are left, or time is up ──> SIGTERM by the kubelet
//
// It is for the preStop hook of Envoy's pod. Where another Envoy on the node is ready before (a DaemonSet with
// maxSurge 1), the VIP stays, new connections go to that one and the old ones end here. Where there is none, the VIP
// moves to another node, and what was not over by then is lost: a connection cannot move.
package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// Options say how long to wait. All times are counted from the start.
type Options struct {
	// Socket is the path of the unix socket of Envoy's admin pages.
	Socket string
	// Least is waited in any case: the news must travel to where new connections come from.
	Least time.Duration
	// Idle is how long no request must have been under way for the remaining connections to be thought idle.
	Idle time.Duration
	// Deadline ends the wait. It must be less than the pod's terminationGracePeriodSeconds.
	Deadline time.Duration
	Log      *slog.Logger
}

// poll is how often Envoy is asked what is left.
const poll = 100 * time.Millisecond

// Run drains the Envoy. It returns an error if Envoy cannot be told so; to be late is none.
func Run(ctx context.Context, options Options) error {
	ctx, cancel := context.WithTimeout(ctx, options.Deadline)
	defer cancel()
	a := newAdmin(options.Socket)
	if err := a.fail(ctx); err != nil {
		return fmt.Errorf("drain Envoy: %w", err)
	}
	options.Log.Info("Envoy drains")
	d := decision{options: options, started: time.Now()}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		left, err := a.left(ctx)
		if ended(err) {
			return nil // nobody listens any more: Envoy has ended, which is what was wanted
		}
		if err == nil && d.over(time.Now(), left) {
			options.Log.Info("Envoy is drained", "connections", left.connections)
			return nil
		}
		select {
		case <-ctx.Done():
			options.Log.Warn("time is up for Envoy to drain: what is left will be cut", "connections", left.connections, "requests", left.requests)
			return nil
		case <-tick.C:
		}
	}
}

// ended says that nobody listens. Any other error may be that of an Envoy that is busy: its admin pages are served by
// the thread that takes over configuration, and requests are still under way.
func ended(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// fail tells Envoy to be unready, until it has heard.
func (a admin) fail(ctx context.Context) error {
	for {
		_, err := a.ask(ctx, http.MethodPost, "/healthcheck/fail", nil)
		if err == nil || ended(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(poll):
		}
	}
}

// remaining is what an Envoy still does.
type remaining struct{ connections, requests int }

// A decision is when the drain is over.
type decision struct {
	options Options
	started time.Time
	quiet   time.Time // since when no request was under way; zero if one is
}

// over is told what is left and says whether that is little enough.
func (d *decision) over(now time.Time, left remaining) bool {
	switch {
	case left.requests > 0:
		d.quiet = time.Time{}
	case d.quiet.IsZero():
		d.quiet = now
	}
	if now.Sub(d.started) < d.options.Least || left.requests > 0 {
		return false
	}
	return left.connections == 0 || now.Sub(d.quiet) >= d.options.Idle
}

type admin struct{ http *http.Client }

func newAdmin(socket string) admin {
	return admin{&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}}
}

// clients are the statistics of the listeners that clients use; the readiness probe is none.
const clients = `^http\.https?\.downstream_(cx|rq)_active$`

var active = regexp.MustCompile(`(?m)^http\.https?\.downstream_(cx|rq)_active: (\d+)$`)

func (a admin) left(ctx context.Context) (remaining, error) {
	page, err := a.ask(ctx, http.MethodGet, "/stats", url.Values{"filter": {clients}})
	if err != nil {
		return remaining{}, err
	}
	return parse(page), nil
}

func parse(page []byte) remaining {
	var out remaining
	for _, m := range active.FindAllSubmatch(page, -1) {
		n, err := strconv.Atoi(string(m[2]))
		if err != nil {
			continue
		}
		if string(m[1]) == "cx" {
			out.connections += n
		} else {
			out.requests += n
		}
	}
	return out
}

func (a admin) ask(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	u := url.URL{Scheme: "http", Host: "envoy", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask Envoy for %s: %w", path, err)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		var wrapped *url.Error // repeats an address that means nothing
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %.200s", path, resp.Status, body)
	}
	return body, nil
}
