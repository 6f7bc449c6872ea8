package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"
)

// serveAPI answers status requests and orders on the lab's socket.
func (s *Supervisor) serveAPI(ctx context.Context) error {
	_ = os.Remove(s.Lab.socket())
	l, err := net.Listen("unix", s.Lab.socket())
	if err != nil {
		return fmt.Errorf("listen for orders: %w", err)
	}
	if err := os.Chmod(s.Lab.socket(), 0o600); err != nil {
		return fmt.Errorf("listen for orders: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(s.Status(r.Context()))
	})
	mux.HandleFunc("POST /kill", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		answer(w, s.kill(q.Get("process"), q.Get("hold") == "true"))
	})
	mux.HandleFunc("POST /start", func(w http.ResponseWriter, r *http.Request) {
		answer(w, s.release(r.URL.Query().Get("process")))
	})
	mux.HandleFunc("POST /reboot", func(w http.ResponseWriter, r *http.Request) {
		answer(w, s.reboot(ctx, r.URL.Query().Get("node")))
	})
	mux.HandleFunc("POST /restart", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		answer(w, s.restart(q.Get("process"), q.Get("program")))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve orders: %w", err)
	}
	return nil
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (s *Supervisor) kill(process string, hold bool) error {
	p, err := s.process(process)
	if err != nil {
		return err
	}
	return p.Kill(syscall.SIGKILL, hold)
}

func (s *Supervisor) release(process string) error {
	p, err := s.process(process)
	if err != nil {
		return err
	}
	p.Release()
	return nil
}

func (s *Supervisor) restart(process, program string) error {
	p, err := s.process(process)
	if err != nil {
		return err
	}
	return p.Restart(program)
}

// ErrDown is returned when no supervisor runs.
var ErrDown = errors.New("the lab is not up: start it with hythe lab up")

// A Client talks to the supervisor of a lab.
type Client struct{ http http.Client }

// Client returns a client for the lab, which need not run yet.
func (l Lab) Client() *Client { return &Client{http: unixClient(l.socket())} }

func unixClient(path string) http.Client {
	return http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}

// Status asks how the lab is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	body, err := c.do(ctx, http.MethodGet, "/status")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err != nil {
		return Status{}, fmt.Errorf("ask the lab: %w", err)
	}
	return s, nil
}

// Kill ends a process ("node1/gateway", "node1/envoy", "control/controller") by SIGKILL. With hold it stays down until Start.
func (c *Client) Kill(ctx context.Context, process string, hold bool) error {
	_, err := c.do(ctx, http.MethodPost, fmt.Sprintf("/kill?process=%s&hold=%v", url.QueryEscape(process), hold))
	return err
}

// Start starts a process that was held down.
func (c *Client) Start(ctx context.Context, process string) error {
	_, err := c.do(ctx, http.MethodPost, "/start?process="+url.QueryEscape(process))
	return err
}

// Restart ends a process gracefully; it is started again, as program if that is not empty.
func (c *Client) Restart(ctx context.Context, process, program string) error {
	_, err := c.do(ctx, http.MethodPost, "/restart?process="+url.QueryEscape(process)+"&program="+url.QueryEscape(program))
	return err
}

// Reboot cuts a node's power and starts it again. It returns when the node's processes are starting.
func (c *Client) Reboot(ctx context.Context, node string) error {
	_, err := c.do(ctx, http.MethodPost, "/reboot?node="+url.QueryEscape(node))
	return err
}

func (c *Client) do(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrDown
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(string(bytes.TrimSpace(body)))
	}
	return body, nil
}
