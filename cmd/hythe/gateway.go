package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/gateway"
	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/internal/envoy/drain"
	"hythe.dev/hythe/internal/envoy/live"
	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/run"
	"hythe.dev/hythe/xds"
	"hythe.dev/hythe/xds/server"
)

func newGatewayCommand() *cobra.Command {
	var g gatewayProcess
	defaultCertificate, tlsProfile := "", ""
	var listen listenTexts
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Turn Ingresses into Envoy configuration and serve it to the node's Envoy",
		Long: `The gateway reads Ingresses, Services, EndpointSlices and TLS Secrets and serves what follows from them
to the Envoy of its node, over a unix socket. It needs no privileges. Envoy goes on with what it has while
the gateway is away. Start Envoy with the output of "hythe gateway bootstrap".`,
		Example: "  hythe gateway --node node1 --manifests manifests/ --state state/ --xds-socket /run/hythe/xds.sock",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if defaultCertificate != "" {
				var err error
				if g.settings.DefaultCertificate, err = parseKey(defaultCertificate); err != nil {
					return err
				}
			}
			var err error
			if g.xds.TLSProfile, err = xds.ParseTLSProfile(tlsProfile); err != nil {
				return fmt.Errorf("flag --tls-profile: %w", err)
			}
			if err := listen.set(&g); err != nil {
				return err
			}
			if err := g.start("gateway"); err != nil {
				return err
			}
			return g.run(cmd.Context())
		},
	}
	g.addFlags(cmd, "127.0.0.1:9902")
	g.addCacheFlag(cmd, "it must be in memory (tmpfs), since it holds private keys")
	f := cmd.Flags()
	f.BoolVar(&g.opaqueSecrets, "opaque-secrets", false, "take certificates from Secrets of any type that hold tls.crt and tls.key, and users from Opaque ones that hold auth; all Secrets of the cluster are read then")
	f.BoolVar(&g.configMaps, "config-maps", false, "read ConfigMaps for the annotations custom-headers and auth-proxy-set-headers; all ConfigMaps of the cluster pass through the gateway then")
	f.StringVar(&g.node, "node", "", "name of the node that this gateway and its Envoy run on")
	f.StringVar(&g.socket, "xds-socket", "/run/hythe/xds.sock", "unix socket on which Envoy gets its configuration")
	f.UintSliceVar(&g.allowUIDs, "allow-uid", nil, "user id that may connect to the socket, besides the own one and root; may be repeated")
	f.StringArrayVar(&g.settings.Classes, "class", nil, "serve Ingresses of this class, whatever IngressClass objects say; may be repeated")
	f.BoolVar(&g.settings.WithoutClass, "without-class", false, "serve Ingresses that name no class, also without a default class")
	f.StringArrayVar(&g.settings.CatchAllNamespaces, "catch-all-namespace", nil, "namespace whose Ingresses may have rules without a host, and a default backend for hosts that nobody names; * for all; may be repeated")
	f.StringVar(&g.xds.HSTS, "hsts", "max-age=31536000; includeSubDomains",
		"header Strict-Transport-Security for hosts with a certificate of their own; empty for none")
	f.StringVar(&tlsProfile, "tls-profile", xds.TLSIntermediate.String(),
		"Mozilla's configuration for all hosts: intermediate (TLS 1.2 and 1.3), or modern (1.3 alone)")
	f.IntVar(&g.xds.OwnChains, "own-chains", xds.DefaultOwnChains,
		"filter chains of Envoy for server names up to which each certificate has its own, with session resumption; beyond, the youngest hosts share one; -1 for no limit")
	f.Uint16Var(&g.settings.HTTPSPort, "https-port", 443, "port that redirects from http to https name")
	f.StringVar(&defaultCertificate, "default-certificate", "", "NAMESPACE/NAME of the Secret for hosts without an own one; self-signed if empty")
	f.StringVar(&g.envoyAdmin, "envoy-admin", "/run/hythe/envoy-admin.sock", "unix socket of Envoy's admin pages, for questions about what Envoy has; of a pattern the newest is taken")
	f.BoolVar(&g.xds.AccessLog, "access-log", false, "let Envoy write a line for each request to its standard output")
	addListenFlags(f, &g)
	listen.addFlags(f)
	_ = cmd.MarkFlagRequired("node")
	f.StringVar(&g.xds.AuthSocket, "auth-socket", "", "unix socket of the doorkeeper, who answers for Envoy who may come in, as Envoy sees it; beside the other one if empty")
	f.StringVar(&g.authTable, "auth-table", "", "file for the doorkeeper, in memory, since it has hashes of passwords; beside the socket if empty")
	f.BoolVar(&g.ownDoorkeeper, "doorkeeper", true, "be the doorkeeper, too; if not, run \"hythe gateway doorkeeper\" beside Envoy, so that it outlives this gateway")
	cmd.AddCommand(newBootstrapCommand(), newDrainCommand(), newDoorkeeperCommand())
	return cmd
}

// envoyAdminVariable names the socket of Envoy's admin pages in the environment of its pod, whose name is in it: a preStop
// hook can only tell so.
const envoyAdminVariable = "ENVOY_ADMIN_SOCKET"

func defaultEnvoyAdmin() string {
	return cmp.Or(os.Getenv(envoyAdminVariable), "/run/hythe/envoy-admin.sock")
}

func newBootstrapCommand() *cobra.Command {
	var o envoy.BootstrapOptions
	output := ""
	cmd := &cobra.Command{
		Use:     "bootstrap",
		Short:   "Print the bootstrap configuration for the Envoy of a node",
		Example: "  hythe gateway bootstrap --node node1 > envoy.yaml && envoy --config-path envoy.yaml --drain-time-s 30",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := envoy.Bootstrap(o)
			if err != nil {
				return err
			}
			if output != "" {
				_, err = kube.WriteFile(output, out, 0o640)
			} else {
				_, err = cmd.OutOrStdout().Write(out)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&output, "output", "", "write it to this file")
	f.StringVar(&o.Node, "node", "", "name of the node")
	f.StringVar(&o.Cluster, "cluster", "hythe", "what the Envoys of all nodes are called")
	f.StringVar(&o.XDSSocket, "xds-socket", "/run/hythe/xds.sock", "unix socket of the gateway")
	f.StringVar(&o.AdminSocket, "admin-socket", defaultEnvoyAdmin(), "unix socket for Envoy's admin pages; none if empty (default from $"+envoyAdminVariable+")")
	f.Uint32Var(&o.AdminMode, "admin-mode", 0o600, "mode of that socket; 0660 if the gateway runs as another user of the same group")
	f.Int64Var(&o.MaxConnections, "max-connections", 50_000, "limit of open client connections")
	f.Uint64Var(&o.MaxHeapBytes, "max-heap-bytes", 0, "memory at which Envoy refuses requests; 0 for no limit")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}

func newDrainCommand() *cobra.Command {
	o := drain.Options{Log: newLogger("drain", slog.LevelInfo)}
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Let an Envoy end without loss: the preStop hook of its pod",
		Long: `Envoy fails its readiness and ends each connection after the answer that is under way. The command returns when
no connection is left, or only idle ones, or at the deadline; Envoy may be stopped then.`,
		Example: "  hythe gateway drain --admin-socket /run/hythe/envoy-admin.sock --deadline 25s",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return drain.Run(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.Socket, "admin-socket", defaultEnvoyAdmin(), "unix socket of Envoy's admin pages (default from $"+envoyAdminVariable+")")
	f.DurationVar(&o.Least, "least", 3*time.Second, "wait so long in any case: new connections must have found another Envoy")
	f.DurationVar(&o.Idle, "idle", 5*time.Second, "connections without a request for so long are closed")
	f.DurationVar(&o.Deadline, "deadline", 25*time.Second, "wait no longer; less than the pod's terminationGracePeriodSeconds")
	return cmd
}

// rebuildEvery is how soon it is noticed that a certificate became valid, or expired.
const rebuildEvery = 10 * time.Minute

// A gatewayProcess serves the Envoy of one node.
type gatewayProcess struct {
	process
	node, socket string
	envoyAdmin   string
	allowUIDs    []uint
	settings     gateway.Settings
	xds          xds.Settings
	// authTable is the path of the doorkeeper's file, and auth writes it.
	authTable     string
	auth          auth.Writer
	ownDoorkeeper bool
	configMaps    bool
	cache         gateway.Cache
	builder       xds.Builder

	server *server.Server
	live   live.Log
	latest atomic.Pointer[built]
	fault  atomic.Pointer[model.Problem] // of the last snapshot, which is not the latest then
}

// built is what was made of the latest snapshot.
type built struct {
	config    gateway.Config
	resources xds.Resources
	problems  []model.Problem
	snapshot  *model.Snapshot
}

func (g *gatewayProcess) run(ctx context.Context) error {
	var uids []uint32
	for _, uid := range g.allowUIDs {
		uids = append(uids, uint32(uid))
	}
	var err error
	if g.server, err = server.New(server.Options{
		Socket: g.socket, AllowUIDs: uids, AccessLogs: &live.Server{Log: &g.live}, Registerer: g.registry, Log: g.log,
	}); err != nil {
		return err
	}
	g.xds.HTTPSPort = g.settings.HTTPSPort
	g.xds.TraceLog = envoy.GatewayCluster
	g.settings.OwnPorts, g.settings.LocalAddresses = model.DefaultOwnPorts(), localAddresses()
	g.settings.DefaultChain, g.settings.DefaultKey, err = selfSigned(filepath.Dir(g.socket), time.Now())
	if err != nil {
		return err
	}
	doorkeeper := g.doorkeeper()
	if err := g.registry.Register(gateway.CertificateCollector{Certificates: g.certificates}); err != nil {
		return fmt.Errorf("register metrics of certificates: %w", err)
	}
	snapshots := run.NewLatest[*model.Snapshot]()
	admin := g.adminPages()
	return runAll(ctx,
		g.server.Run,
		doorkeeper,
		func(ctx context.Context) error { return g.watch(ctx, g.kinds(), snapshots.Put) },
		func(ctx context.Context) error { return g.serve(ctx, admin) },
		func(ctx context.Context) error { return g.build(ctx, snapshots) },
		g.reports,
	)
}

// certificates are those that are served.
func (g *gatewayProcess) certificates() []gateway.Certificate {
	if b := g.latest.Load(); b != nil {
		return b.config.Certificates
	}
	return nil
}

// kinds are what the gateway watches.
func (g *gatewayProcess) kinds() []string {
	if g.configMaps {
		return append(kube.GatewayKinds(), "ConfigMap")
	}
	return kube.GatewayKinds()
}

// localAddresses are all of this node, also those that its Node object does not name.
func localAddresses() []netip.Addr {
	var out []netip.Addr
	addresses, _ := net.InterfaceAddrs() // without them, the admin pages are guarded by their listening on loopback
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, prefix.Addr())
		}
	}
	return out
}

// build hands each new snapshot to the server, and the last one again regularly, since certificates expire.
func (g *gatewayProcess) build(ctx context.Context, snapshots *run.Latest[*model.Snapshot]) error {
	regularly := time.NewTicker(rebuildEvery)
	defer regularly.Stop()
	var last *model.Snapshot
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-regularly.C:
		case <-snapshots.Ready():
			s, ok := snapshots.Take()
			if !ok {
				continue
			}
			same := last != nil && g.cache.Unaffected(s) && slices.Equal(last.Problems, s.Problems)
			if last = s; same {
				continue // a Secret that nobody names, for example
			}
		}
		if last != nil {
			g.set(last, time.Now())
		}
	}
}

func (g *gatewayProcess) set(s *model.Snapshot, now time.Time) {
	fault := contain.Do(func() {
		b := built{snapshot: s}
		var more []model.Problem
		g.settings.Now = now
		b.config, b.problems = g.cache.Build(s, g.settings)
		g.panics.Problems("gateway", b.problems)
		b.resources, more = g.builder.Build(b.config, g.xds)
		g.panics.Problems("xds", more)
		b.problems = slices.Concat(s.Problems, b.problems, more)
		b.problems = append(b.problems, g.setAuth(b.config.Auth, now)...)
		g.latest.Store(&b)
		g.server.Set(b.resources)
	})
	var problem *model.Problem
	if fault != nil { // not at one object, which costs that one
		_ = g.panics.Err("gateway", fault)
		p := model.InternalError(model.ObjectRef{Kind: "Node", Name: g.node}, "Envoy keeps its last configuration, without later changes", fault)
		problem = &p
	}
	g.fault.Store(problem)
}

// patience is how long a report stays that was true before Envoy or the gateway was restarted: addresses of
// Ingresses should not come and go with it.
const patience = 10 * time.Second

// reports writes the report when it changes, at most every 50 ms.
func (g *gatewayProcess) reports(ctx context.Context) error {
	log := problemLog{log: g.log}
	ready := time.Now()
	again := time.NewTicker(patience / 4)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		case <-g.server.Changed():
		}
		if g.latest.Load() != nil {
			report := g.summary()
			if report.Ready {
				ready = time.Now()
			}
			if report.Ready || time.Since(ready) >= patience {
				g.report(report)
			}
			log.set(g.problems())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (g *gatewayProcess) problems() []model.Problem {
	var out []model.Problem
	if b := g.latest.Load(); b != nil {
		out = append(out, b.problems...)
	}
	if p := g.fault.Load(); p != nil {
		out = append(out, *p)
	}
	return model.SortProblems(append(out, g.server.Status().Problems()...))
}

func (g *gatewayProcess) summary() v1alpha1.Report {
	status := g.server.Status()
	out := v1alpha1.Report{
		Component: "gateway", Node: g.node, Ready: status.Ready, Problems: model.Reported(g.problems()),
	}
	for _, i := range status.Ingresses {
		out.Ingresses = append(out.Ingresses, i.String())
	}
	return out
}

func (g *gatewayProcess) adminPages() run.Admin {
	page := func(write func(io.Writer, *built)) func(io.Writer) {
		return func(w io.Writer) {
			if b := g.latest.Load(); b != nil {
				write(w, b)
			}
		}
	}
	return run.Admin{
		Gatherer: g.registry,
		Ready: func() error {
			if s := g.server.Status(); !s.Ready {
				return fmt.Errorf("%d Envoys are connected, %d resources are not acknowledged", s.Streams, s.Outstanding)
			}
			return nil
		},
		Debug: map[string]func(io.Writer){
			"hosts":    page(func(w io.Writer, b *built) { fmt.Fprint(w, b.config) }),
			"xds":      page(func(w io.Writer, b *built) { fmt.Fprint(w, &b.resources) }),
			"status":   func(w io.Writer) { fmt.Fprint(w, g.server.Status()) },
			"problems": func(w io.Writer) { writeProblems(w, g.shown()) },
			"panics":   g.panics.WriteText,
		},
		Inspect: g.inspectors(),
		Shared:  []string{"hosts", "routes", "certificates"}, // Envoy makes the dump in its main thread
	}
}

// selfSigned returns the key pair for hosts without an own one. It is kept in dir, which holds the socket and is
// memory-backed on a node, so that a restart changes nothing in Envoy.
func selfSigned(dir string, now time.Time) (chain, key []byte, err error) {
	path := filepath.Join(dir, "default-certificate.pem")
	if data, err := os.ReadFile(path); err == nil {
		chain, key = splitPair(data)
		if _, err := tls.X509KeyPair(chain, key); err == nil {
			return chain, key, nil
		}
	}
	if chain, key, err = makePair(now); err != nil {
		return nil, nil, fmt.Errorf("make default certificate: %w", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, nil, fmt.Errorf("make socket folder: %w", err)
	}
	if _, err := kube.WriteFile(path, append(chain[:len(chain):len(chain)], key...), 0o600); err != nil {
		return nil, nil, fmt.Errorf("keep default certificate: %w", err)
	}
	return chain, key, nil
}

func splitPair(data []byte) (chain, key []byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			chain = append(chain, pem.EncodeToMemory(block)...)
		} else {
			key = append(key, pem.EncodeToMemory(block)...)
		}
	}
	return chain, key
}

func makePair(now time.Time) (chain, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "hythe default certificate"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(10, 0, 0), // nobody trusts it, so nobody has to renew it
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, errCert := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	pkcs8, errKey := x509.MarshalPKCS8PrivateKey(private)
	if err := errors.Join(errCert, errKey); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}
