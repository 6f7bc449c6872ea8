package main

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/gateway/auth"
	"hythe.dev/hythe/internal/envoy/authz"
	"hythe.dev/hythe/internal/model"
)

func newDoorkeeperCommand() *cobra.Command {
	var o authz.Options
	level := slog.LevelInfo
	cmd := &cobra.Command{
		Use:   "doorkeeper",
		Short: "Answer for Envoy who may come in: auth servers, and passwords that Envoy cannot compare",
		Long: `The doorkeeper runs beside Envoy and reads what the gateway has written, so that requests which need it are
served while the gateway restarts. Without it, and without what it needs, they are answered 503.`,
		Example: "  hythe gateway doorkeeper --socket /run/hythe/auth/auth.sock --table /run/hythe/gateway/auth.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Log = newLogger("doorkeeper", level)
			return authz.New(o).Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Socket, "socket", "/run/hythe/auth.sock", "unix socket on which Envoy asks")
	f.StringVar(&o.Table, "table", "/run/hythe/auth.json", "file that the gateway writes")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "how long an auth server may take to answer")
	f.IntVar(&o.Asks, "asks", 1024, "how many questions to auth servers may be under way")
	f.TextVar(&level, "log-level", slog.LevelInfo, "least level to log: debug, info, warn or error")
	return cmd
}

// doorkeeper sets the paths, and returns what runs the doorkeeper, or nothing where it runs elsewhere.
func (g *gatewayProcess) doorkeeper() func(context.Context) error {
	beside := filepath.Dir(g.socket)
	g.xds.AuthSocket = cmp.Or(g.xds.AuthSocket, filepath.Join(beside, "auth.sock"))
	g.auth = auth.Writer{Path: cmp.Or(g.authTable, filepath.Join(beside, "auth.json"))}
	if !g.ownDoorkeeper {
		return func(context.Context) error { return nil }
	}
	return authz.New(authz.Options{Socket: g.xds.AuthSocket, Table: g.auth.Path, Log: g.log}).Run
}

// setAuth writes the doorkeeper's file, before Envoy is told to ask.
func (g *gatewayProcess) setAuth(table auth.Table, now time.Time) []model.Problem {
	err := g.auth.Set(table, now)
	if err == nil {
		return nil
	}
	return []model.Problem{model.Problemf(model.ObjectRef{Kind: "Node", Name: g.node}, "AuthTableNotWritten",
		"%v; paths that need passwords or an auth server are served as before, or answer 503", err)}
}
