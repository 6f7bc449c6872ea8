package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/internal/envoy/binary"
	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/demo"
	"hythe.dev/hythe/internal/lab/echo"
	"hythe.dev/hythe/internal/lab/topology"
)

// labFlags are common to all commands of the lab.
type labFlags struct{ name, dir string }

func (f *labFlags) lab() (lab.Lab, error) { return lab.New(f.name, f.dir) }

func newLabCommand() *cobra.Command {
	f := &labFlags{}
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "A cluster of network namespaces on this machine",
		Long: `The lab is a small cluster on this machine, to try Hythe and to test it: a client on an "internet" segment, a router,
a LAN, three nodes and a control machine, all of them network namespaces. Hythe's processes and Envoy are the real ones; pods are
processes in network namespaces that the real CNI plugin attached. It takes ordinary Kubernetes manifests. It needs root.`,
	}
	cmd.PersistentFlags().StringVar(&f.name, "name", os.Getenv("HYTHE_LAB"), "name of the lab, so that several can run at a time (also HYTHE_LAB)")
	cmd.PersistentFlags().StringVar(&f.dir, "dir", "", "folder of the lab (default /var/tmp/hythe-lab, with a dash and the name if there is one)")
	cmd.AddCommand(newLabUp(f), newLabDown(f), newLabShell(f), newLabStatus(f), newLabDemo(f),
		newLabKill(f), newLabStart(f), newLabRestart(f), newLabReboot(f), newLabCable(f), newLabServe(f), newLabEcho())
	return cmd
}

func newLabUp(f *labFlags) *cobra.Command {
	var o lab.Options
	cmd := &cobra.Command{
		Use:     "up",
		Short:   "Start the lab and leave it running",
		Example: "  hythe lab up --manifests examples --fill",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			o.Out = cmd.OutOrStdout()
			if err := l.Up(cmd.Context(), o); err != nil {
				return err
			}
			st, err := l.Client().Status(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintln(o.Out)
			st.WriteText(o.Out)
			return nil
		},
	}
	addSourceFlag(cmd, &o.Source)
	cmd.Flags().StringVar(&o.Manifests, "manifests", "examples", "folder of Kubernetes manifests; changes in it are seen at once")
	cmd.Flags().BoolVar(&o.Fill, "fill", false, "add echo backends and test certificates for Services and TLS Secrets that Ingresses only name")
	cmd.Flags().DurationVar(&o.Wait, "wait", time.Minute, "how long to wait until all is ready")
	_ = cmd.MarkFlagDirname("manifests")
	return cmd
}

// addSourceFlag says where Hythe has the cluster from.
func addSourceFlag(cmd *cobra.Command, source *string) {
	*source = lab.SourceFiles
	cmd.Flags().Func("source", `where Hythe has the cluster from: "files", or "api", a real kube-apiserver (default "files")`, func(s string) error {
		if s != lab.SourceFiles && s != lab.SourceAPI {
			return fmt.Errorf("want %s or %s", lab.SourceFiles, lab.SourceAPI)
		}
		*source = s
		return nil
	})
}

func newLabDown(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "End the lab, also one that crashed, and remove all of it",
		Long:  "Down ends the lab. No process, namespace, link, rule, mount or socket of it is left, also after a crash. Logs stay.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			return l.Down()
		},
	}
}

func newLabShell(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "shell MACHINE [-- COMMAND...]",
		Short: "Open a shell, or run a command, on a machine of the lab",
		Long:  "MACHINE is client, router, lan, control, a node (node1, node2, node3) or a pod: its name, or NAMESPACE/DEPLOYMENT for the first one.",
		Example: `  hythe lab shell node1
  hythe lab shell client -- curl -i http://203.0.113.10/
  hythe lab shell router -- tcpdump -ni lan0 arp`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			return l.Shell(args[0], args[1:])
		},
	}
}

func newLabStatus(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show processes, pods and addresses of the lab",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			st, err := l.Client().Status(cmd.Context())
			if err != nil {
				return err
			}
			st.WriteText(cmd.OutOrStdout())
			return nil
		},
	}
}

func newLabDemo(f *labFlags) *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job end to end, and check it by packets",
		Long: `Demo starts a lab named "demo", asks it what a client, a router and the pods would ask, and prints what answered and how long
it took. It exits 0 only if everything happened as it should. With --manifests it runs any folder of manifests (or one file): each
route of each Ingress is asked once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.name == "" {
				f.name = "demo"
			}
			l, err := f.lab()
			if err != nil {
				return err
			}
			o.Out = os.Stdout
			err = demo.Run(cmd.Context(), l, o)
			if errors.Is(err, demo.ErrFailed) {
				return exitError{code: 1}
			}
			return err
		},
	}
	addSourceFlag(cmd, &o.Source)
	cmd.Flags().StringVar(&o.Manifests, "manifests", "", "folder of manifests, or one file, to run instead of the examples")
	cmd.Flags().BoolVar(&o.Fill, "fill", false, "with --manifests: add backends and certificates that Ingresses only name")
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "leave the lab running afterwards")
	return cmd
}

func newLabKill(f *labFlags) *cobra.Command {
	var hold bool
	cmd := &cobra.Command{
		Use:     "kill PROCESS",
		Short:   "Kill a process of the lab, by SIGKILL",
		Long:    "PROCESS is as hythe lab status names it (node1/node, node1/gateway, control/controller), or node1/envoy. It is started again unless held down.",
		Example: "  hythe lab kill node1/envoy --down\n  hythe lab start node1/envoy",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			return l.Client().Kill(cmd.Context(), args[0], hold)
		},
	}
	cmd.Flags().BoolVar(&hold, "down", false, "keep it down until hythe lab start")
	return cmd
}

func newLabStart(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "start PROCESS",
		Short: "Start a process again that was killed with --down",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			return l.Client().Start(cmd.Context(), args[0])
		},
	}
}

func newLabRestart(f *labFlags) *cobra.Command {
	executable := ""
	cmd := &cobra.Command{
		Use:     "restart PROCESS",
		Short:   "End a process of the lab gracefully and start it again, maybe as another build",
		Example: "  hythe lab restart node1/node --executable ./hythe-next",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			if executable != "" {
				if executable, err = filepath.Abs(executable); err != nil {
					return fmt.Errorf("find executable: %w", err)
				}
			}
			return l.Client().Restart(cmd.Context(), args[0], executable)
		},
	}
	cmd.Flags().StringVar(&executable, "executable", "", "program that takes the old one's place")
	return cmd
}

func newLabReboot(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "reboot NODE",
		Short: "Cut the power of a node of the lab and start it again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			return l.Client().Reboot(cmd.Context(), args[0])
		},
	}
}

func newLabCable(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:       "cable MACHINE out|in",
		Short:     "Pull a machine's cable out of the LAN, or put it back",
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"out", "in"},
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			if args[1] != "in" && args[1] != "out" {
				return fmt.Errorf("cable %q: want out or in", args[1])
			}
			return topology.SetCable(l.Name, args[0], args[1] == "in")
		},
	}
}

func newLabServe(f *labFlags) *cobra.Command {
	s := &lab.Supervisor{}
	cmd := &cobra.Command{
		Use:    "serve",
		Short:  "Run the lab in the foreground",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := f.lab()
			if err != nil {
				return err
			}
			s.Lab, s.Log = l, newLogger("lab", slog.LevelInfo)
			if s.Executable, err = os.Executable(); err != nil {
				return fmt.Errorf("find own program: %w", err)
			}
			if s.Envoy, err = binary.Find(); err != nil {
				return err
			}
			return s.Run(cmd.Context())
		},
	}
	addSourceFlag(cmd, &s.Source)
	cmd.Flags().StringVar(&s.Manifests, "manifests", "", "folder of manifests")
	cmd.Flags().BoolVar(&s.Fill, "fill", false, "add what Ingresses only name")
	_ = cmd.MarkFlagRequired("manifests")
	return cmd
}

func newLabEcho() *cobra.Command {
	var s echo.Server
	var tcp, udp []uint
	cmd := &cobra.Command{
		Use:    "echo",
		Short:  "Be a container of the lab: answer each request with what was asked",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.TCP, s.UDP = portNumbers(tcp), portNumbers(udp)
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&s.Pod, "pod", "", "name of the pod")
	cmd.Flags().StringVar(&s.Namespace, "namespace", "", "namespace of the pod")
	cmd.Flags().StringVar(&s.Node, "node", "", "name of the node")
	cmd.Flags().StringVar(&s.Container, "container", "", "name of the container")
	cmd.Flags().StringVar(&s.Version, "version", "", "tag of the container's image")
	cmd.Flags().DurationVar(&s.Grace, "grace", 30*time.Second, "time for requests in flight at the end")
	cmd.Flags().UintSliceVar(&tcp, "tcp", nil, "TCP port to serve HTTP on; may be repeated")
	cmd.Flags().UintSliceVar(&udp, "udp", nil, "UDP port to answer on; may be repeated")
	return cmd
}

func portNumbers(in []uint) []uint16 {
	var out []uint16
	for _, p := range in {
		if p > 0 && p < 1<<16 {
			out = append(out, uint16(p))
		}
	}
	return out
}
