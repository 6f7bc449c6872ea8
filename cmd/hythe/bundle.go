package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"hythe.dev/hythe/internal/check"
	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/inspect/bundle"
	"hythe.dev/hythe/internal/inspect/show"
	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/node/kernel/nft/readback"
)

// bundleQuestions are those under /inspect that go into a bundle.
var bundleQuestions = []string{
	"process", "hosts", "routes", "certificates", "services", "vips", "drops", "nodes", "problems", "check", "facts", "table",
}

// bundleOptions are the flags of hythe support-bundle.
type bundleOptions struct {
	*finder
	output string
}

func newBundleCommand() *cobra.Command {
	o := bundleOptions{}
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Collect what somebody needs who helps with a problem, without secrets",
		Long: `Support-bundle asks all processes for all that they tell (hythe get, hythe check, /debug, /metrics, the tables in the kernel),
adds the logs of a lab, and packs it. No Secret, manifest, environment or command line is read, and what looks like a key,
a password, a token or a cookie is taken out of logs and messages. Names of objects and hosts, and addresses, stay: look
into the file before you hand it to strangers.`,
		Example: "  hythe support-bundle -o bundle.tar.gz",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), time.Now())
		},
	}
	o.finder = addFindFlags(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file to write, - for standard output (default hythe-support-TIME.tar.gz)")
	return cmd
}

func (o *bundleOptions) run(ctx context.Context, stdout, stderr io.Writer, now time.Time) error {
	say := func(format string, args ...any) { fmt.Fprintf(stderr, "  "+format+"\n", args...) }
	b := bundle.Options{Questions: bundleQuestions, Extra: map[string][]byte{}, Say: say, Now: now}
	cluster, err := o.open(ctx)
	if err != nil { // then this machine is all there is to tell of
		fmt.Fprintf(stderr, "Warning: %v\n", err)
		b.Extra["no-processes.txt"] = []byte(err.Error() + "\n")
	} else {
		warnSilent(stderr, cluster)
		b.Cluster = cluster
		o.addLists(ctx, &b, cluster, now)
	}
	addMachine(ctx, &b, now)
	if l, ok := o.usedLab(); ok {
		b.Logs = l.Logs()
	}
	if o.output == "-" {
		return bundle.Write(ctx, stdout, b)
	}
	if o.output == "" {
		o.output = "hythe-support-" + now.UTC().Format("20060102-150405") + ".tar.gz"
	}
	if err := writeWhole(o.output, func(w io.Writer) error { return bundle.Write(ctx, w, b) }); err != nil {
		return err
	}
	fmt.Fprintln(stdout, o.output)
	return nil
}

// usedLab is the lab whose processes are asked, if it is one.
func (o *bundleOptions) usedLab() (lab.Lab, bool) {
	if o.asksCluster() {
		return lab.Lab{}, false
	}
	name, dir := o.lab.name, o.lab.dir
	if !o.chosen() {
		name, dir = o.getenv("HYTHE_LAB"), ""
		if addresses, guessed, err := o.finder.addresses(); err != nil || guessed || len(o.admin) > 0 || len(addresses) == 0 || o.getenv("HYTHE_ADMIN") != "" {
			return lab.Lab{}, false
		}
	}
	l, err := lab.New(name, dir)
	return l, err == nil
}

// addLists adds what hythe get shows of each kind.
func (o *bundleOptions) addLists(ctx context.Context, b *bundle.Options, cluster *inspect.Cluster, now time.Time) {
	for _, kind := range show.Kinds() {
		q := question{cluster: cluster, all: true}
		list, errs := q.items(ctx, kind.Name)
		var out bytes.Buffer
		if err := kind.Write(&out, list, show.Options{Output: "wide", Now: now}); err != nil {
			errs = append(errs, err)
		}
		for _, err := range errs {
			fmt.Fprintf(&out, "Warning: %v\n", err)
		}
		b.Extra["get/"+kind.Name+".txt"] = out.Bytes()
	}
	results, errs := askChecks(ctx, cluster, "")
	var out bytes.Buffer
	for _, r := range results {
		fmt.Fprintf(&out, "%s:\n", r.Node)
		check.WriteText(&out, r.Findings, nil)
	}
	for _, err := range errs {
		fmt.Fprintf(&out, "Warning: %v\n", err)
	}
	b.Extra["check.txt"] = out.Bytes()
	b.Say("%d kinds of objects, %d nodes checked", len(show.Kinds()), len(results))
}

// addMachine adds what this machine is, and its own check.
func addMachine(ctx context.Context, b *bundle.Options, now time.Time) {
	facts := check.Read(ctx, check.Options{CNIDir: "/etc/cni/net.d", Dirs: []string{"/var/lib/hythe"}})
	var text bytes.Buffer
	check.WriteText(&text, check.Build(facts), nil)
	b.Extra["this-machine/check.txt"] = text.Bytes()
	if data, err := json.MarshalIndent(facts, "", "  "); err == nil {
		b.Extra["this-machine/facts.json"] = append(data, '\n')
	}
	b.Extra["version.txt"] = fmt.Appendf(nil, "hythe %s\n%s %s/%s\nLinux %s\n%d CPUs\n%s\n",
		versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH, facts.Release, runtime.NumCPU(), now.UTC().Format(time.RFC3339))
	b.Say("this machine")
}

// writeWhole writes a file that is there whole, or not at all. Only its owner may read it.
func writeWhole(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".hythe-support-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// inspectFacts answers what hythe check looks at on this agent's machine.
func (n *node) inspectFacts(ctx context.Context, _ url.Values) (any, error) {
	return n.facts(ctx), nil
}

// inspectTable answers with the table in the kernel, as text.
func (n *node) inspectTable(context.Context, url.Values) (any, error) {
	var b bytes.Buffer
	if err := readback.WriteTable(&b); err != nil {
		return nil, err
	}
	lines := bytes.Split(bytes.TrimSpace(b.Bytes()), []byte("\n"))
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = string(line)
	}
	return out, nil
}
