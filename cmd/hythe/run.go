package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hythe.dev/hythe/internal/envoy"
	"hythe.dev/hythe/internal/envoy/binary"
	"hythe.dev/hythe/lb"
)

// The parts that hythe run can run.
var allParts = []string{"controller", "gateway", "envoy", "node"}

func newRunCommand() *cobra.Command {
	r := runner{}
	hostname, _ := os.Hostname()
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run everything on this machine, on a watched folder of manifests",
		Long: `Controller, gateway, node agent and an Envoy on this one machine. Manifests come from a folder that is
watched: Ingresses, Services, Secrets, and EndpointSlices that name the endpoints. A Node object with this
machine's name, address and podCIDRs is needed for the overlay; without one, or without root, leave the
node agent out: --parts controller,gateway,envoy.

What the node agent put into the kernel stays when this ends, so that traffic goes on: the nftables table
"inet hythe" and the link hythe.vxlan.`,
		Example: `  # Ingress on ports 80 and 443 of this machine, to endpoints that EndpointSlices name
  hythe run --manifests manifests/ --parts gateway,envoy --listen-http 0.0.0.0:80 --listen-https 0.0.0.0:443`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&r.manifests, "manifests", "", "folder of Kubernetes manifests to watch")
	f.StringVar(&r.data, "data", "/var/lib/hythe", "folder for claims, status, reports and what else must survive a restart")
	f.StringVar(&r.runDir, "run", "/run/hythe", "folder for sockets and what must not survive a reboot")
	f.StringVar(&r.name, "node", hostname, "name of this machine's Node object")
	f.StringSliceVar(&r.parts, "parts", allParts, "what to run")
	f.StringArrayVar(&r.gateway.settings.Classes, "class", nil, "serve Ingresses of this class, whatever IngressClass objects say; may be repeated")
	f.BoolVar(&r.withoutClass, "without-class", false, "serve Ingresses and LoadBalancer Services that name no class")
	f.Uint16Var(&r.gateway.settings.HTTPSPort, "https-port", 0, "port that redirects from http to https name (default: that of --listen-https)")
	f.StringVar(&r.envoy, "envoy", "", "path of the Envoy binary (default: found)")
	f.StringVar(&r.node.heartbeatKey, "heartbeat-key", "", "file with the key that all nodes share; without it no VIP is announced")
	f.StringVar(&r.node.cniConfDir, "cni-conf-dir", "", "install the CNI plugin for the runtime that reads this folder")
	f.StringVar(&r.node.cniBinDir, "cni-bin-dir", "/opt/cni/bin", "where the runtime looks for CNI plugins")
	f.TextVar(&r.level, "log-level", r.level, "least level to log: debug, info, warn or error")
	addListenFlags(f, &r.gateway)
	_ = cmd.MarkFlagRequired("manifests")
	_ = cmd.MarkFlagDirname("manifests")
	return cmd
}

// A runner is all processes in one.
type runner struct {
	process
	name, data, runDir string
	envoy              string
	parts              []string
	withoutClass       bool

	gateway gatewayProcess
	node    node
}

func (r *runner) has(part string) bool { return slices.Contains(r.parts, part) }

func (r *runner) run(ctx context.Context) error {
	for _, p := range r.parts {
		if !slices.Contains(allParts, p) {
			return fmt.Errorf("there is no part %q: choose of %s", p, strings.Join(allParts, ", "))
		}
	}
	if r.has("node") && os.Geteuid() != 0 {
		return errors.New("the node agent needs root: use sudo, or leave it out with --parts controller,gateway,envoy")
	}
	if err := os.MkdirAll(r.runDir, 0o750); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	r.state = filepath.Join(r.data, "state")
	if r.gateway.settings.HTTPSPort == 0 {
		r.gateway.settings.HTTPSPort = r.gateway.xds.HTTPS.Port()
	}
	c := controller{settings: lb.Settings{GatewayService: defaultGatewayService, WithoutClass: r.withoutClass}}
	var tasks []func(context.Context) error
	for _, part := range []struct {
		name, admin string
		process     *process
		run         func(context.Context) error
	}{
		{"controller", controllerAdmin, &c.process, c.run},
		{"gateway", gatewayAdmin, &r.gateway.process, r.gateway.run},
		{"node", nodeAdmin, &r.node.process, r.node.run},
	} {
		if !r.has(part.name) {
			continue
		}
		*part.process = process{manifests: r.manifests, state: r.state, admin: part.admin, level: r.level}
		if err := part.process.start(part.name); err != nil {
			return err
		}
		tasks = append(tasks, part.run)
	}
	r.gateway.node, r.gateway.socket, r.gateway.ownDoorkeeper = r.name, filepath.Join(r.runDir, "xds.sock"), true
	r.gateway.envoyAdmin = r.envoyAdmin()
	r.gateway.settings.WithoutClass = r.withoutClass
	r.gateway.settings.CatchAllNamespaces = []string{"*"} // whoever writes the one folder is the administrator
	r.node.name, r.node.dataDir, r.node.runDir = r.name, r.data, r.runDir
	if r.has("envoy") {
		tasks = append(tasks, r.runEnvoy)
	}
	return runAll(ctx, tasks...)
}

// envoyAdmin is the socket on which the gateway reads what Envoy has.
func (r *runner) envoyAdmin() string { return filepath.Join(r.runDir, "envoy-admin.sock") }

// runEnvoy runs Envoy and starts it again when it dies.
func (r *runner) runEnvoy(ctx context.Context) error {
	path := r.envoy
	if path == "" {
		var err error
		if path, err = binary.Find(); err != nil {
			return err
		}
	}
	for {
		p, err := envoy.Start(ctx, envoy.Options{
			Path:          path,
			BootstrapFile: filepath.Join(r.runDir, "envoy.yaml"),
			Output:        os.Stderr,
			Bootstrap: envoy.BootstrapOptions{
				Node:        r.name,
				XDSSocket:   filepath.Join(r.runDir, "xds.sock"),
				AdminSocket: r.envoyAdmin(),
			},
		})
		if err != nil {
			return err
		}
		err = p.Wait()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
			newLogger("envoy", r.level).Error("Envoy ended and is started again", "error", err)
		}
	}
}

// addListenFlags says where Envoy listens.
func addListenFlags(f *pflag.FlagSet, g *gatewayProcess) {
	listen := func(p *netip.AddrPort, name, port, what string) {
		f.TextVar(p, name, netip.MustParseAddrPort("0.0.0.0:"+port), "address that Envoy listens on for "+what)
	}
	listen(&g.xds.HTTP, "listen-http", "8080", "http")
	listen(&g.xds.HTTPS, "listen-https", "8443", "https")
	listen(&g.xds.Ready, "listen-ready", "8081", "readiness, path /ready, open when the first configuration is in use")
}
