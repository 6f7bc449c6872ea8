package dump

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// timeout is for one page.
	timeout = 8 * time.Second
	// maxPage is the most that is read of one page, in bytes.
	maxPage = 512 << 20
	// maxNames is how many names go into one question; for more, all are asked for.
	maxNames = 40
)

// errNotThere is Envoy's answer 404.
var errNotThere = errors.New("not there")

// A Reader asks one Envoy. It only ever reads.
type Reader struct {
	socket string
	http   *http.Client
}

// NewReader makes a Reader for an Envoy whose admin pages are on the unix socket of this path.
func NewReader(socket string) *Reader {
	return &Reader{socket: socket, http: &http.Client{Timeout: timeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}}
}

// Read reads what is asked for. After an error it goes on, so that the Config has what could be read.
func (r *Reader) Read(ctx context.Context, what What) (*Config, error) {
	c := &Config{Read: time.Now()}
	if err := r.server(ctx, c); err != nil {
		return c, err // nobody answers
	}
	var errs []error
	errs = append(errs, r.configs(ctx, c, "dynamic_listeners", what.Listeners))
	if what.Hosts {
		errs = append(errs, r.configs(ctx, c, "dynamic_route_configs", AllNames))
	}
	errs = append(errs, r.certificates(ctx, c, what.Certificates))
	if len(what.Clusters) > 0 {
		errs = append(errs, r.clusters(ctx, c, what.Clusters))
	}
	c.sort()
	return c, errors.Join(errs...)
}

// certificates reads those in use; of those only that Envoy still waits for it says that they warm.
func (r *Reader) certificates(ctx context.Context, c *Config, names []string) error {
	active := r.configs(ctx, c, "dynamic_active_secrets", names)
	var waits Config
	warming := r.configs(ctx, &waits, "dynamic_warming_secrets", names)
	for _, w := range waits.Certificates {
		if old := c.Certificate(w.Name); old != nil {
			old.Warming = true
			continue
		}
		w.Warming = true
		c.Certificates = append(c.Certificates, w)
	}
	return errors.Join(active, warming)
}

func (r *Reader) clusters(ctx context.Context, c *Config, names []string) error {
	errs := []error{r.configs(ctx, c, "dynamic_active_clusters", names)}
	var waits Config
	errs = append(errs, r.configs(ctx, &waits, "dynamic_warming_clusters", names))
	for _, w := range waits.Clusters {
		if old := c.Cluster(w.Name); old != nil {
			old.Warming = true
			continue
		}
		w.Warming = true
		c.Clusters = append(c.Clusters, w)
	}
	page, err := r.get(ctx, "/clusters", url.Values{"format": {"json"}, "filter": {pattern(names)}})
	if err == nil {
		err = c.addHealth(page)
	}
	errs = append(errs, err)
	inStats := make([]string, len(names))
	for i, n := range names {
		inStats[i] = statName(n)
	}
	of := `^cluster\.` + strings.Trim(pattern(inStats), "^$") + `\.circuit_breakers\.default\.[a-z_]+_open$`
	page, err = r.get(ctx, "/stats", url.Values{"filter": {of}})
	c.addBreakers(string(page))
	return errors.Join(append(errs, err)...)
}

// configs reads a kind of config_dump, nothing if no names are given.
func (r *Reader) configs(ctx context.Context, c *Config, resource string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	query := url.Values{"resource": {resource}}
	if p := pattern(names); p != all {
		query.Set("name_regex", p) // which leaves out what was refused and has no earlier version
	}
	page, err := r.get(ctx, "/config_dump", query)
	if errors.Is(err, errNotThere) {
		return nil // Envoy has none of the kind
	}
	if err != nil {
		return err
	}
	return c.addConfigs(page)
}

// all is the regular expression for every name.
const all = "^.*$"

// pattern is a regular expression for the names.
func pattern(names []string) string {
	if len(names) > maxNames || slices.Equal(names, AllNames) {
		return all
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = regexp.QuoteMeta(n)
	}
	return "^(" + strings.Join(quoted, "|") + ")$"
}

func (r *Reader) server(ctx context.Context, c *Config) error {
	page, err := r.get(ctx, "/server_info", nil)
	if err != nil {
		return err
	}
	var info struct {
		Version string `json:"version"`
		State   string `json:"state"`
		Uptime  string `json:"uptime_current_epoch"`
	}
	if err := json.Unmarshal(page, &info); err != nil {
		return fmt.Errorf("parse server info of Envoy: %w", err)
	}
	c.Server.State = info.State
	if parts := strings.Split(info.Version, "/"); len(parts) > 1 {
		c.Server.Version = parts[1] // COMMIT/VERSION/…
	}
	c.Server.Uptime, _ = time.ParseDuration(info.Uptime)
	return nil
}

// get reads one page.
func (r *Reader) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	u := url.URL{Scheme: "http", Host: "envoy", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask Envoy for %s: %w", path, err)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		var wrapped *url.Error // repeats an address that means nothing
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("ask Envoy at %s: %w", r.socket, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("read Envoy's page %s: %w", path, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return body, nil
	case http.StatusNotFound:
		return nil, fmt.Errorf("Envoy's page %s: %w: %.200s", path, errNotThere, body)
	default:
		return nil, fmt.Errorf("Envoy's page %s: %s: %.200s", path, resp.Status, body)
	}
}
