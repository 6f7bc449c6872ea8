// Package nginx holds vectors: what Ingresses with annotations of ingress-nginx must do, asked of a real Envoy.
//
//	testdata/KEY.txtar:  *.yaml ── gateway.Build, xds.Build ──> Envoy ──> servers that say what they saw
//	                     requests ──────── asked of Envoy, each answer compared ────────┘
//
// A new file in testdata is a new case; nothing else is to be changed. It has manifests (one or more files that end in
// .yaml; servers take the place of the endpoints of each Service, so EndpointSlices need one address each, any), a file
// "requests", and "problems", the Problems of package gateway, which go test -update writes.
//
// # requests
//
// A block for each request, blocks parted by an empty line:
//
//	# docs/user-guide/ingress-path-matching.md "Example": what is shown, and where nginx's documentation or tests say so
//	POST https://shop.example.com/api/x?y=1
//	header X-A: b
//	body 2000 chunked
//	200 backend=shop/web:http uri=/x?y=1 header.X-A=b
//
// The first lines are comments: each request cites the place in kubernetes/ingress-nginx that it stands for, or says
// "Hythe:" where it differs on purpose. Then method and URL; headers; a body of so many bytes, with Content-Length or
// chunked; and the answer: status, and any of backend (the Backend's name), uri, host, proto (HTTP/1.1 or HTTP/2.0) and
// header.NAME as the backend saw them, location and answer.NAME of the answer. A value of - means absent. "upgrade"
// in the place of a header or body makes it a WebSocket, through which the body goes and comes back.
//
// Auth servers answer the status of the header Test-Auth, 401 without; auth_test.go says what else.
//
// In manifests CERT(any) and KEY(any) are a certificate that signs itself, without names, and CERT(pod) and KEY(pod) those that
// pods show, for pod.test; CERT(a.test,b.test) is for these names. Pods say in the headers Tls-Server-Name and Tls-Client what they saw of the gateway.
//
// CA(red) and CRL(red) are an authority of clients' certificates, and what it has revoked; several have commas between. A line
// "client NAME" shows a certificate of clients_test.go.
//
// A line "sni NAME" asks on a TLS connection for another server name, as browsers do where a certificate has both names; "sni -" for none. The
// answer has the header Test-Certificate, the common name of the certificate that was shown.
//
// A line "times N" asks so often, and compares the last answer. The header Test-Answer tells the backend what to do: answer
// a status, "stall" (no answer), "reset" (end of the connection), or "kib N" (a body of so many KiB), "drip N" (so many bytes, 0.6 s apart). With a status the answer
// has Tries, how often the backends were asked for this one request. "cookie" is the answer's Set-Cookie, with * for the
// value and _ for spaces, and | between several. "early 503" answers before the request was read, "refuse" does not upgrade,
// and Test-Only names the one backend that all this is for. Test-Header adds a header to the answer. A body that is
// "unfinished" never comes to its end.
package nginx
