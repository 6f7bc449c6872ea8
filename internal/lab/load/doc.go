// Package load is a client that asks without rest, to find out whether a change of the cluster loses a request.
//
//	Client.Run ──┬─ 8 connections of HTTP/1.1, keep-alive ──┐
//	             └─ 2 connections of HTTP/2 ────────────────┴── TLS ──> VIP ──> pods
//	     └──> Tally: answered, by protocol and version; lost, each with its reason; times
//
// With Plain it speaks HTTP/1.1 without TLS on as many connections as one likes, to watch connections that must live on.
// The pace is steady whatever the server does: a slow answer does not hold back the requests after it.
package load
