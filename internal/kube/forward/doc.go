// Package forward reaches the pods of Hythe through the API server, as kubectl port-forward does: nothing has to listen for
// it on a node or here, and who may ask is the API server's to say (verbs list of pods, get and create of pods/portforward).
//
//	hythe get ──> Dial(pod, port) ──WebSocket──> API server ──> kubelet ──> 127.0.0.1:port in the pod's network
//	                  └ one connection to each pod, a pair of streams in it for each question
//
// Where a proxy in between does not let WebSockets pass, it is SPDY/3.1, which older API servers speak too.
package forward
