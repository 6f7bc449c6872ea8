// Package dump reads back what a running Envoy has.
//
//	Reader.Read(What) ── GET, unix socket ──> Envoy's admin: config_dump, clusters, stats, server_info
//	        │
//	        └── parse (pure) ──> *Config: listeners, virtual hosts, clusters with the health of their endpoints,
//	                             certificates (never keys), and what Envoy refused
//
// Nothing is changed: Envoy's admin can also stop it, so Reader knows GET and these pages only. The socket is made by
// Envoy with mode 0600 (BootstrapOptions.AdminMode): who may open it may do all that Envoy's admin can do.
//
// A large configuration is not dumped whole: What names what is wanted, and Envoy filters. The one exception are the
// virtual hosts, which Envoy shows as one table.
package dump
