// Package arp makes this node the one that a VIP is reached at: it answers ARP requests (RFC 826) for the
// addresses that it is told to own, announces them, and listens for others that use them.
//
//	Set(owned) ──> table ──┬── answers to requests, with the MAC of the interface ──┐
//	Ask(addr)  ──> (pure)  ├── announcements: at once, in the next seconds, each 30 s ├─> packet socket
//	               ^       └── probes (RFC 5227) and questions to neighbours ─────────┘        │
//	               └────────────────── frames that pass the kernel's filter <─────────────────┘
//
// No interface ever holds a VIP, so the kernel says nothing about it, and when the process dies nobody answers.
// The kernel's filter (BPF) passes ARP about watched addresses only: other ARP on a busy LAN costs nothing.
package arp
