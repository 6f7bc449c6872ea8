package inspect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"hythe.dev/hythe/internal/run"
)

// timeout is for one question. A process that reads back a large table takes long; one that hangs must not hold up the rest.
const timeout = 10 * time.Second

// maxAnswer is the most that is read of one answer, in bytes.
const maxAnswer = 256 << 20

// Identity is what each process says of itself under /inspect/process.
type Identity struct {
	// Component is "controller", "gateway", "node" or "run".
	Component string `json:"component"`
	// Node is empty for the controller.
	Node    string    `json:"node,omitempty"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Source is where its world comes from: "files", "api", or "cache" while the API server is away.
	Source string `json:"source"`
	// Snapshot is when the newest Snapshot was handed out. Zero before the first.
	Snapshot time.Time `json:"snapshot"`
}

// A Process is one that answers.
type Process struct {
	Identity

	address string
	http    *http.Client
}

// Name is "node1/gateway", or "controller".
func (i Identity) Name() string {
	if i.Node == "" {
		return i.Component
	}
	return i.Node + "/" + i.Component
}

// A Cluster is all processes that were found.
type Cluster struct {
	// Processes are those that answered, by name.
	Processes []*Process
	// Silent are the errors of the addresses that did not answer, by address.
	Silent []error
}

// A Place is where a process serves its admin pages.
type Place struct {
	// Name is for people: an address, or a pod.
	Name string
	// Dial connects to it.
	Dial func(context.Context) (net.Conn, error)
}

// Open asks who is at each of the addresses. It fails only if nobody answers.
func Open(ctx context.Context, addresses []string) (*Cluster, error) {
	var places []Place
	for _, addr := range slices.Compact(slices.Sorted(slices.Values(addresses))) {
		places = append(places, placeOf(addr))
	}
	return OpenPlaces(ctx, places)
}

// OpenPlaces is Open for places that are no addresses.
func OpenPlaces(ctx context.Context, places []Place) (*Cluster, error) {
	c := &Cluster{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, place := range places {
		wg.Go(func() {
			p := newProcess(place)
			err := p.Get(ctx, "process", nil, &p.Identity)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				c.Silent = append(c.Silent, fmt.Errorf("nobody answers at %s: %w", place.Name, err))
				return
			}
			c.Processes = append(c.Processes, p)
		})
	}
	wg.Wait()
	slices.SortFunc(c.Processes, func(a, b *Process) int { return cmp.Compare(a.Name(), b.Name()) })
	slices.SortFunc(c.Silent, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	if len(c.Processes) == 0 {
		return nil, errors.Join(append([]error{errors.New("no process of Hythe answers")}, c.Silent...)...)
	}
	return c, nil
}

// Component returns the processes of a component, ordered by node.
func (c *Cluster) Component(component string) []*Process {
	var out []*Process
	for _, p := range c.Processes {
		// "hythe run" is every component in one.
		if p.Component == component || p.Component == "run" {
			out = append(out, p)
		}
	}
	return out
}

// On returns the process of a component on a node, nil if it did not answer.
func (c *Cluster) On(component, node string) *Process {
	for _, p := range c.Component(component) {
		if p.Node == node {
			return p
		}
	}
	return nil
}

// placeOf is the place at an address.
func placeOf(addr string) Place {
	network, target := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, target = "unix", path
	}
	return Place{addr, func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, network, target) }}
}

func newProcess(place Place) *Process {
	return &Process{address: place.Name, http: &http.Client{Timeout: timeout, Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return place.Dial(ctx) },
		DisableKeepAlives: true,
	}}}
}

// Address is where the process serves its admin pages.
func (p *Process) Address() string { return p.address }

// Get asks for /inspect/NAME and decodes the answer. The error wraps run.ErrNotFound where that is the answer.
func (p *Process) Get(ctx context.Context, name string, query url.Values, into any) error {
	body, err := p.fetch(ctx, "/inspect/"+name, query)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read answer of %s to %s: %w", p.Name(), name, err)
	}
	return nil
}

// Text asks for /debug/NAME.
func (p *Process) Text(ctx context.Context, name string) (string, error) {
	body, err := p.fetch(ctx, "/debug/"+name, nil)
	return string(body), err
}

// Pages lists the names that Text knows.
func (p *Process) Pages(ctx context.Context) ([]string, error) {
	body, err := p.fetch(ctx, "/debug", nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(body)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "/debug/"); ok {
			out = append(out, name)
		}
	}
	return out, nil
}

// Ready asks for /readyz. It returns nil, or what the process lacks.
func (p *Process) Ready(ctx context.Context) error {
	_, err := p.fetch(ctx, "/readyz", nil)
	return err
}

// Raw asks for /inspect/NAME and returns the answer as it is, in JSON.
func (p *Process) Raw(ctx context.Context, name string) (json.RawMessage, error) {
	var out json.RawMessage
	err := p.Get(ctx, name, nil, &out)
	return out, err
}

// Metrics asks for /metrics, in Prometheus' text format.
func (p *Process) Metrics(ctx context.Context) (string, error) {
	body, err := p.fetch(ctx, "/metrics", nil)
	return string(body), err
}

func (p *Process) fetch(ctx context.Context, path string, query url.Values) ([]byte, error) {
	u := url.URL{Scheme: "http", Host: "hythe", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", path, err)
	}
	req.Header.Set(run.InspectHeader, "1")
	resp, err := p.http.Do(req)
	if err != nil {
		var wrapped *url.Error // repeats an address that means nothing
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read answer to %s: %w", path, err)
	}
	text := strings.TrimSpace(string(body))
	switch resp.StatusCode {
	case http.StatusOK:
		return body, nil
	case http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s", run.ErrNotFound, text)
	default:
		return nil, fmt.Errorf("%s: %s", resp.Status, text)
	}
}
