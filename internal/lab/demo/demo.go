package demo

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hythe.dev/hythe/examples"
	"hythe.dev/hythe/internal/atomicfile"
	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/model"
)

// ErrFailed says that something did not happen as it should; all was printed already.
var ErrFailed = errors.New("the demo failed")

// Options say what to show.
type Options struct {
	// Manifests is a folder, or a file, to run instead of the examples.
	Manifests string
	// Fill adds what Ingresses of Manifests only name.
	Fill bool
	// Source is lab.SourceFiles (also if empty) or lab.SourceAPI.
	Source string
	// Keep leaves the lab running.
	Keep bool
	Out  io.Writer
}

// A demo is a lab and what is known of it.
type demo struct {
	*printer
	lab      lab.Lab
	plan     topology.Plan
	client   *lab.Client
	roots    *x509.CertPool
	vip      netip.Addr
	failover *Failover
	capture  *capture
	status   lab.Status // from when the lab was ready
}

// A step shows one thing.
type step struct {
	title string
	run   func(*demo, context.Context)
}

// steps are what the demo of the examples shows, in order.
func steps() []step {
	return []step{
		{"The gateway's Service gets a VIP, and one node owns it", (*demo).showVIP},
		{"A request from the internet reaches pods on two nodes", (*demo).showRequests},
		{"Services and pods inside of the cluster", (*demo).showCluster},
		{"Editing a manifest changes routing, live", (*demo).showEdit},
		{"Five rolling updates under load lose nothing", (*demo).showUpdates},
		{"No packet of the VIP was seen twice", (*demo).showCapture},
		{"The VIP's owner fails in three ways, and the VIP moves", (*demo).showFailover},
	}
}

// Run shows the demo in l. What it finds wrong it prints, and returns ErrFailed.
func Run(ctx context.Context, l lab.Lab, o Options) error {
	d := &demo{printer: newPrinter(o.Out), lab: l, plan: topology.Build(l.Name), client: l.Client()}
	started := time.Now()
	if err := l.Down(); err != nil {
		return err
	}
	if !o.Keep {
		defer func() {
			if err := l.Down(); err != nil {
				d.note("the lab could not be taken down: %v", err)
			}
		}()
	}
	if err := copyManifests(o.Manifests, l.Manifests()); err != nil {
		return err
	}
	if err := d.up(ctx, o); err != nil {
		return err
	}
	if o.Manifests == "" {
		for _, s := range steps() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			d.begin(s.title)
			s.run(d, ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	} else {
		d.begin("Each route of each Ingress is asked")
		d.showFolder(ctx)
	}
	return d.finish(started, o.Keep)
}

func (d *demo) finish(started time.Time, keep bool) error {
	fmt.Fprintln(d.out)
	if keep {
		name := ""
		if d.lab.Name != "" {
			name = " --name " + d.lab.Name
		}
		fmt.Fprintf(d.out, "The lab stays up: see hythe lab%s status, and end it by hythe lab%s down.\n", name, name)
	}
	if len(d.failed) == 0 {
		fmt.Fprintf(d.out, "%s after %.0f s.\n", d.paint(green, "All of it happened as it should"), time.Since(started).Seconds())
		return nil
	}
	fmt.Fprintf(d.out, "%s after %.0f s (logs: %s):\n", d.paint(red, fmt.Sprintf("%d things did not happen as they should", len(d.failed))), time.Since(started).Seconds(), d.lab.Logs())
	for _, f := range d.failed {
		fmt.Fprintf(d.out, "  %s\n", f)
	}
	return ErrFailed
}

// up starts the lab, with a folder of its own so that the demo can edit manifests.
func (d *demo) up(ctx context.Context, o Options) error {
	d.begin("A lab: client, router, LAN, three nodes, and Hythe on them")
	d.note(`client 198.51.100.10 ── router ── LAN 203.0.113.0/24 ── node1 .101, node2 .102 (gateways), node3 .103, control .100`)
	examples := o.Manifests == ""
	wait := time.Minute
	if !examples {
		wait = 30 * time.Second
	}
	if o.Source == lab.SourceAPI {
		wait += 30 * time.Second // etcd and kube-apiserver start first
		d.note("the cluster's objects are in a kube-apiserver on the control machine")
	}
	err := d.lab.Up(ctx, lab.Options{Manifests: d.lab.Manifests(), Source: o.Source, Fill: o.Fill || examples, Out: d.out, Wait: wait})
	if err != nil && examples {
		return err
	}
	if d.status, err = d.client.Status(ctx); err != nil {
		return err
	}
	if !examples {
		for _, w := range d.status.Waiting {
			d.note("not ready: %s", w)
		}
	}
	for _, line := range d.status.Added {
		d.note("added: %s", line)
	}
	for _, line := range d.status.Skipped {
		d.note("not added: %s", line)
	}
	d.note("CA of the test certificates: %s", d.lab.CA())
	d.roots, err = readRoots(d.lab.CA())
	return err
}

// copyManifests copies a folder or a file of manifests, or the examples if from is empty.
func copyManifests(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("copy manifests: %w", err)
	}
	var source fs.FS = examples.Files()
	if from != "" {
		info, err := os.Stat(from)
		if err != nil {
			return fmt.Errorf("copy manifests: %w", err)
		}
		if !info.IsDir() {
			data, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(filepath.Join(to, filepath.Base(from)), data, 0o644)
			}
			return err
		}
		source = os.DirFS(from)
	}
	err := fs.WalkDir(source, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(".yaml.yml.json", filepath.Ext(path)) || filepath.Ext(path) == "" {
			return err
		}
		data, err := fs.ReadFile(source, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o644)
	})
	if err != nil {
		return fmt.Errorf("copy manifests: %w", err)
	}
	return nil
}

// readLimit bounds how long the cluster's state may take to be read.
const readLimit = 20 * time.Second

// snapshot reads the cluster's state once, as Hythe's processes see them.
func (d *demo) snapshot(ctx context.Context) (*model.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	return d.lab.Snapshot(ctx, d.lab.Manifests())
}

// edit replaces text in one of the demo's manifests, by rename as an editor would.
func (d *demo) edit(file, old, replacement string) error {
	path := filepath.Join(d.lab.Manifests(), file)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("edit manifest: %w", err)
	}
	if strings.Count(string(data), old) != 1 {
		return fmt.Errorf("edit manifest %s: %q is not there once", file, old)
	}
	edited := strings.Replace(string(data), old, replacement, 1)
	if err := atomicfile.WriteUnsynced(path, []byte(edited), 0o644); err != nil {
		return fmt.Errorf("edit manifest: %w", err)
	}
	return nil
}
