package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// backendAddress is the server that all subjects lead to: an Envoy which answers by itself, so that it costs as little as can be.
const backendAddress = "10.244.200.1"

// A site is what all subjects serve: hosts of one backend, each with a certificate of its own.
type site struct {
	dir   string
	hosts []string
	certs []pair
}

// A pair is a certificate and its key in PEM.
type pair struct{ chain, key []byte }

// newSite writes the certificates for those that read them from files.
func newSite(dir string, a *authority, hosts int) (site, error) {
	s := site{dir: dir}
	if err := os.MkdirAll(filepath.Join(dir, "certs"), 0o700); err != nil {
		return s, fmt.Errorf("make folder: %w", err)
	}
	for n := range hosts {
		host := hostName(n)
		chain, key, err := a.issue(host)
		if err != nil {
			return s, err
		}
		both := append(append([]byte{}, chain...), key...)
		if err := os.WriteFile(s.cert(host), both, 0o600); err != nil {
			return s, fmt.Errorf("write certificate: %w", err)
		}
		s.hosts, s.certs = append(s.hosts, host), append(s.certs, pair{chain, key})
	}
	return s, nil
}

func (s site) cert(host string) string { return filepath.Join(s.dir, "certs", host+".pem") }

func (s site) write(name, content string) (string, error) {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return path, nil
}

// backend is the configuration of an Envoy that answers by itself.
func (s site) backend() string {
	return `
static_resources:
  listeners:
  - address: {socket_address: {address: ` + backendAddress + `, port_value: 8080}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: backend
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: "ok"}}}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
`
}

// static is what somebody would write by hand for Envoy: the settings that Envoy advises for edges, and nothing else.
func (s site) static(plain, secure int) string {
	var hosts, chains strings.Builder
	for _, h := range s.hosts {
		fmt.Fprintf(&hosts, "            - {name: %[1]s, domains: [%[1]s], routes: [{match: {prefix: /}, route: {cluster: backend, timeout: 0s}}]}\n", h)
	}
	manager := func(stat string) string {
		return `
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ` + stat + `
          use_remote_address: true
          normalize_path: true
          merge_slashes: true
          strip_any_host_port: true
          path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
          request_headers_timeout: 10s
          stream_idle_timeout: 300s
          common_http_protocol_options: {idle_timeout: 900s, headers_with_underscores_action: REJECT_REQUEST}
          http2_protocol_options: {max_concurrent_streams: 100, initial_stream_window_size: 65536, initial_connection_window_size: 1048576}
          rds: {route_config_name: hosts, config_source: {path_config_source: {path: ` + filepath.Join(s.dir, "routes.yaml") + `}}}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}]
`
	}
	routes := "resources:\n- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  name: hosts\n  virtual_hosts:\n" +
		strings.ReplaceAll(hosts.String(), "            - {", "  - {")
	_, _ = s.write("routes.yaml", routes) // Envoy says so if it is missing
	for _, h := range s.hosts {
		fmt.Fprintf(&chains, `
    - filter_chain_match: {server_names: [%s]}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: %[2]s}, private_key: {filename: %[2]s}}]
      filters:%s`, h, s.cert(h), manager("https"))
	}
	return fmt.Sprintf(`
node: {id: static, cluster: static}
static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: %d}}
    per_connection_buffer_limit_bytes: 32768
    filter_chains:
    - filters:%s
  - address: {socket_address: {address: 0.0.0.0, port_value: %d}}
    per_connection_buffer_limit_bytes: 32768
    listener_filters: [{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}]
    filter_chains:%s
  clusters:
  - name: backend
    connect_timeout: 5s
    type: STATIC
    per_connection_buffer_limit_bytes: 32768
    load_assignment:
      cluster_name: backend
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: 8080}}}}]}]
`, plain, manager("http"), secure, chains.String(), backendAddress)
}

// nginx is the same for nginx.
func (s site) nginx(plain, secure int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
worker_processes 2;
daemon off;
pid %[1]s/nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off;
  server_names_hash_max_size 8192;
  server_names_hash_bucket_size 128;
  keepalive_requests 100000000;
  client_body_temp_path %[1]s/nginx-body; proxy_temp_path %[1]s/nginx-proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  ssl_protocols TLSv1.2 TLSv1.3;
  upstream backend { server %[2]s:8080; keepalive 128; keepalive_requests 100000000; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
`, s.dir, backendAddress)
	for _, h := range s.hosts {
		fmt.Fprintf(&b, "  server { listen %d; listen %d ssl http2; server_name %s; ssl_certificate %s; ssl_certificate_key %[4]s; location / { proxy_pass http://backend; } }\n",
			plain, secure, h, s.cert(h))
	}
	return b.String() + "}\n"
}

// haproxy is the same for HAProxy.
func (s site) haproxy(plain, secure int) (string, error) {
	list, err := s.write("haproxy-hosts", strings.Join(s.hosts, "\n")+"\n")
	return fmt.Sprintf(`
global
  nbthread 2
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend all
  bind *:%d
  bind *:%d ssl crt %s alpn h2,http/1.1 ssl-min-ver TLSv1.2
  option forwardfor
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request deny deny_status 404 unless { req.hdr(host),field(1,:),lower -m str -f %s }
  default_backend backend
backend backend
  http-reuse always
  server backend %s:8080
`, plain, secure, filepath.Join(s.dir, "certs"), list, backendAddress), err
}
