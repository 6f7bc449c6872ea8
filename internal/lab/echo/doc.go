// Package echo is the small server that stands for every container image in the lab. It answers each request with what it
// is (pod, node, container, version) and what it was asked (host, path, headers, the caller's address), in JSON.
//
//	GET /cart?status=503     answers with that status
//	GET /cart?sleep=200ms    answers after a while, at most a minute
//	GET /?fetch=http://localhost:9090/   answers what another container of its pod says; only loopback is allowed
//
// It speaks HTTP/1.1 and HTTP/2 without TLS on each TCP port, and sends datagrams back with the pod's name on each UDP port.
// On the end of its context it finishes what it holds, closes idle connections and returns, as a good container does.
package echo
