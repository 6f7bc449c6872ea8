package nginx

import (
	"net/netip"
	"slices"
	"strings"

	"hythe.dev/hythe/gateway/policy"
)

// table holds all keys, sorted by name; byName finds one.
var (
	table  = sorted(pathKeys, redirectKeys, limitKeys, accessKeys, backendKeys, otherKeys)
	byName = index(table)
)

func sorted(lists ...[]Key) []Key {
	out := slices.Concat(lists...)
	slices.SortFunc(out, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func index(keys []Key) map[string]Key {
	out := make(map[string]Key, len(keys))
	for _, k := range keys {
		out[k.Name] = k
	}
	return out
}

// pathKeys say which requests are meant, and what backends see of them.
var pathKeys = []Key{
	{Name: "rewrite-target", Support: Safe, Protects: true, read: rewriteTarget,
		Note: "it makes regular expressions of this Ingress's own paths only, not of all paths of the host; no query and no variables of nginx"},
	{Name: "use-regex", Support: Safe, read: useRegex,
		Note: "for this Ingress's own paths only, not for all paths of the host; RE2 syntax, so no look-around and no back-reference"},
	{Name: "app-root"},
	{Name: "server-alias"},
	{Name: "upstream-vhost"},
	{Name: "x-forwarded-prefix"},
	{Name: "custom-headers"},
	{Name: "connection-proxy-header", Support: Needless,
		Note: "connections to pods are kept open, and upgrades work"},
	{Name: "preserve-trailing-slash", Support: Needless,
		Note: "a redirect keeps the path as it is"},
	{Name: "enable-rewrite-log", Support: Needless},
	{Name: "canary", read: boolean(func(s *Settings) *bool { return &s.Canary }),
		Note: "it is left out"},
	{Name: "canary-by-header"},
	{Name: "canary-by-header-value"},
	{Name: "canary-by-header-pattern"},
	{Name: "canary-by-cookie"},
	{Name: "canary-weight"},
	{Name: "canary-weight-total"},
	{Name: "default-backend"},
	{Name: "custom-http-errors"},
	{Name: "disable-proxy-intercept-errors"},
	{Name: "mirror-target"},
	{Name: "mirror-request-body"},
	{Name: "mirror-host"},
}

// redirectKeys send clients elsewhere.
var redirectKeys = []Key{
	{Name: "ssl-redirect", Support: Full, read: sslRedirect,
		Note: "308; not for ACME challenges"},
	{Name: "force-ssl-redirect", Support: Nearest, read: boolean(func(s *Settings) *bool { return &s.ForceRedirect }),
		Note: "X-Forwarded-Proto of a proxy before us is not believed"},
	{Name: "permanent-redirect"},
	{Name: "permanent-redirect-code"},
	{Name: "temporal-redirect"},
	{Name: "temporal-redirect-code"},
	{Name: "from-to-www-redirect"},
	{Name: "relative-redirects"},
	{Name: "proxy-redirect-from"},
	{Name: "proxy-redirect-to"},
	{Name: "proxy-cookie-domain"},
	{Name: "proxy-cookie-path"},
}

// limitKeys bound time, size and rate.
var limitKeys = []Key{
	{Name: "proxy-read-timeout", Support: Nearest, read: idle,
		Note: "a request on which no byte moves for so long, either way, ends with 504; of this and proxy-send-timeout the longer counts"},
	{Name: "proxy-send-timeout", Support: Nearest, read: idle,
		Note: "as proxy-read-timeout"},
	{Name: "proxy-connect-timeout", Support: Full, read: connectTimeout,
		Note: "for one attempt; two more follow on other pods"},
	{Name: "proxy-body-size", Support: Nearest, read: bodySize,
		Note: "413; without the annotation there is no limit, where nginx has 1m; not for WebSockets"},
	{Name: "client-body-buffer-size", Support: Needless,
		Note: "bodies are not buffered"},
	{Name: "proxy-buffering", Support: Needless,
		Note: "answers are passed on as they come"},
	{Name: "proxy-request-buffering", Support: Needless,
		Note: "requests are passed on as they come"},
	{Name: "proxy-buffer-size", Support: Needless},
	{Name: "proxy-buffers-number", Support: Needless},
	{Name: "proxy-busy-buffers-size", Support: Needless},
	{Name: "proxy-max-temp-file-size", Support: Needless,
		Note: "nothing is written to files"},
	{Name: "limit-rps"},
	{Name: "limit-rpm"},
	{Name: "limit-burst-multiplier"},
	{Name: "limit-connections"},
	{Name: "limit-whitelist"},
	{Name: "limit-allowlist"},
	{Name: "limit-rate"},
	{Name: "limit-rate-after"},
	{Name: "global-rate-limit", Support: Refused,
		Note: "there is no counter that gateways share; use limit-rps"},
	{Name: "global-rate-limit-window", Support: Refused,
		Note: "use limit-rps"},
	{Name: "global-rate-limit-key", Support: Refused,
		Note: "use limit-rps"},
	{Name: "global-rate-limit-ignored-cidrs", Support: Refused,
		Note: "use limit-rps"},
	{Name: "proxy-next-upstream"},
	{Name: "proxy-next-upstream-timeout"},
	{Name: "proxy-next-upstream-tries"},
}

// accessKeys say who may come.
var accessKeys = []Key{
	{Name: "whitelist-source-range", Support: Full, Protects: true, read: sources(func(s *policy.Sources) *[]netip.Prefix { return &s.Allow }),
		Note: "403 to others; the older name of allowlist-source-range: both together are one list"},
	{Name: "allowlist-source-range", Support: Full, Protects: true, read: sources(func(s *policy.Sources) *[]netip.Prefix { return &s.Allow }),
		Note: "403 to others"},
	{Name: "denylist-source-range", Support: Full, Protects: true, read: sources(func(s *policy.Sources) *[]netip.Prefix { return &s.Deny }),
		Note: "403 to these; it goes before the list of the allowed"},
	{Name: "satisfy"},
	{Name: "auth-type", Protects: true},
	{Name: "auth-secret"},
	{Name: "auth-secret-type"},
	{Name: "auth-realm"},
	{Name: "auth-url", Protects: true},
	{Name: "auth-signin"},
	{Name: "auth-signin-redirect-param"},
	{Name: "auth-method"},
	{Name: "auth-response-headers"},
	{Name: "auth-request-redirect"},
	{Name: "auth-proxy-set-headers"},
	{Name: "auth-always-set-cookie"},
	{Name: "auth-cache-key"},
	{Name: "auth-cache-duration"},
	{Name: "auth-keepalive", Support: Needless},
	{Name: "auth-keepalive-requests", Support: Needless},
	{Name: "auth-keepalive-timeout", Support: Needless},
	{Name: "auth-keepalive-share-vars", Support: Needless},
	{Name: "enable-global-auth"},
	{Name: "auth-tls-secret", Protects: true},
	{Name: "auth-tls-verify-client"},
	{Name: "auth-tls-verify-depth"},
	{Name: "auth-tls-error-page"},
	{Name: "auth-tls-pass-certificate-to-upstream"},
	{Name: "auth-tls-match-cn"},
	{Name: "enable-cors"},
	{Name: "cors-allow-origin"},
	{Name: "cors-allow-methods"},
	{Name: "cors-allow-headers"},
	{Name: "cors-expose-headers"},
	{Name: "cors-allow-credentials"},
	{Name: "cors-max-age"},
	{Name: "enable-modsecurity", Support: Refused,
		Note: "there is no web application firewall; put one before or behind the gateway"},
	{Name: "enable-owasp-core-rules", Support: Refused,
		Note: "there is no web application firewall"},
	{Name: "modsecurity-transaction-id", Support: Refused,
		Note: "there is no web application firewall"},
	{Name: "modsecurity-snippet", Support: Refused,
		Note: "there is no web application firewall"},
}

// backendKeys say how pods are chosen and spoken to.
var backendKeys = []Key{
	{Name: "backend-protocol", Support: Full, Protects: true, read: backendProtocol,
		Note: "HTTP, HTTPS, GRPC, GRPCS, also H2C; a pod's certificate is not verified; FCGI is refused"},
	{Name: "secure-backends", Support: Full, read: secureBackends,
		Note: "the older form of backend-protocol: HTTPS"},
	{Name: "proxy-http-version", Support: Needless,
		Note: "HTTP/1.1, or as backend-protocol says"},
	{Name: "proxy-ssl-secret"},
	{Name: "proxy-ssl-verify", Protects: true, read: verifyBackend,
		Note: "off is the default; on is not supported yet"},
	{Name: "proxy-ssl-verify-depth"},
	{Name: "proxy-ssl-name"},
	{Name: "proxy-ssl-server-name"},
	{Name: "proxy-ssl-protocols"},
	{Name: "proxy-ssl-ciphers"},
	{Name: "service-upstream"},
	{Name: "load-balance"},
	{Name: "upstream-hash-by"},
	{Name: "upstream-hash-by-subset"},
	{Name: "upstream-hash-by-subset-size"},
	{Name: "affinity"},
	{Name: "affinity-mode"},
	{Name: "affinity-canary-behavior"},
	{Name: "session-cookie-name"},
	{Name: "session-cookie-path"},
	{Name: "session-cookie-domain"},
	{Name: "session-cookie-expires"},
	{Name: "session-cookie-max-age"},
	{Name: "session-cookie-secure"},
	{Name: "session-cookie-samesite"},
	{Name: "session-cookie-conditional-samesite-none"},
	{Name: "session-cookie-change-on-failure"},
	{Name: "fastcgi-index", Support: Refused,
		Note: "FastCGI is not spoken; put a web server into the pod"},
	{Name: "fastcgi-params-configmap", Support: Refused,
		Note: "FastCGI is not spoken"},
}

// otherKeys concern TLS, logs, and text of nginx's configuration.
var otherKeys = []Key{
	{Name: "ssl-passthrough"},
	{Name: "ssl-ciphers"},
	{Name: "ssl-prefer-server-ciphers", Support: Needless},
	{Name: "configuration-snippet"},
	{Name: "server-snippet"},
	{Name: "auth-snippet", Support: Refused,
		Note: "text of nginx's configuration has no meaning here"},
	{Name: "stream-snippet", Support: Refused,
		Note: "text of nginx's configuration has no meaning here"},
	{Name: "enable-access-log"},
	{Name: "enable-opentelemetry"},
	{Name: "opentelemetry-operation-name"},
	{Name: "opentelemetry-trust-incoming-span"},
	{Name: "enable-opentracing", Support: Refused,
		Note: "OpenTracing has ended; use enable-opentelemetry"},
	{Name: "opentracing-trust-incoming-span", Support: Refused,
		Note: "OpenTracing has ended"},
	{Name: "http2-push-preload", Support: Needless,
		Note: "browsers have no HTTP/2 push any more"},
	{Name: "enable-influxdb", Support: Refused,
		Note: "it ended with ingress-nginx 1.0; use Prometheus"},
	{Name: "influxdb-measurement", Support: Refused,
		Note: "use Prometheus"},
	{Name: "influxdb-port", Support: Refused,
		Note: "use Prometheus"},
	{Name: "influxdb-host", Support: Refused,
		Note: "use Prometheus"},
	{Name: "influxdb-server-name", Support: Refused,
		Note: "use Prometheus"},
}
