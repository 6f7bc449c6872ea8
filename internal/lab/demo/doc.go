// Package demo shows the main job of Hythe in a lab, and checks it from outside, by packets: what a client on the internet
// side asks and gets, what the router sees on the LAN, who answers when a node dies.
//
//	steps ── ask, ping, ARP, capture, lab/load ──> the lab's namespaces
//	      └─ one line for each question: what was asked, what answered, how long it took
//
// Nothing here looks into Hythe's processes: an answer counts, not a status.
package demo
