// Package client connects to an API server: one HTTP/2 connection, tested while it is silent, for all kinds that Hythe
// uses. It and its neighbours below internal/kube are the only users of client-go.
package client
