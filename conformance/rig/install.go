package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"hythe.dev/hythe/conformance/rig/cluster"
	"hythe.dev/hythe/conformance/rig/image"
)

const (
	release   = "hythe"
	namespace = "hythe-system"
)

// images builds the images that nodes get, and returns their files; those of the product are there already, or not yet.
func (r *rig) images() ([]string, error) {
	dir := filepath.Join(filepath.Dir(r.Binaries), "images")
	agnhost, err := image.Agnhost(r.Binaries, append([]string{cluster.AgnhostImage}, cluster.AgnhostAliases()...)...)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, i := range []struct {
		name string
		img  image.Image
	}{
		{"pause", image.Pause(r.Binaries, cluster.PauseImage)},
		{"coredns", image.CoreDNS(r.Binaries, cluster.CoreDNSImage)},
		{"agnhost", agnhost},
		{"regression-issue-74839", image.Boom(r.Binaries, cluster.BoomImage)},
	} {
		file, err := image.Cached(dir, i.name, i.img)
		if err != nil {
			return nil, err
		}
		out = append(out, file)
	}
	return append(out, r.productImages()...), nil
}

// productImages are the files of Hythe's own images.
func (r *rig) productImages() []string {
	if !r.WithHythe() {
		return nil
	}
	var out []string
	for _, name := range []string{"hythe", "hythe-envoy"} {
		file := filepath.Join(r.source, "bin", "images", name+"-"+runtime.GOARCH+".tar")
		if _, err := os.Stat(file); err != nil {
			return nil
		}
		out = append(out, file)
	}
	return out
}

// loadProduct gives Hythe's images to all nodes.
func (r *rig) loadProduct(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range r.Nodes {
		g.Go(func() error { return r.importImages(ctx, r.hostNode(n.Name), r.productImages()) })
	}
	return g.Wait()
}

// productTags are the settings of the chart that name the images as they were built.
func (r *rig) productTags() ([]string, error) {
	var out []string
	for i, file := range r.productImages() {
		tags, err := image.Tags(file)
		if err != nil {
			return nil, err
		}
		if len(tags) == 0 {
			return nil, fmt.Errorf("image %s has no name", file)
		}
		_, tag, _ := strings.Cut(tags[0], ":")
		out = append(out, "--set-string", []string{"image.tag", "envoyImage.tag"}[i]+"="+tag)
	}
	return out, nil
}

// writeBootIDs puts the nodes' boot ids where containers read them: an uninstall removes what is in Hythe's folders.
func (r *rig) writeBootIDs() error {
	var errs []error
	for _, n := range r.Nodes {
		if _, on := r.hostNode(n.Name).InitPID(); on {
			errs = append(errs, r.hostNode(n.Name).WriteBootID())
		}
	}
	return errors.Join(errs...)
}

// install installs Hythe by its chart, or upgrades it, and waits until all of it is ready.
func (r *rig) install(ctx context.Context) error {
	chart := filepath.Join(r.source, "charts", "hythe")
	if _, err := os.Stat(filepath.Join(chart, "Chart.yaml")); err != nil {
		r.say("no chart at %s: Hythe is not installed", chart)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	values := filepath.Join(r.source, "conformance", "rig", "values-"+r.Flavour+".yaml")
	args := []string{"--kubeconfig", r.Kubeconfig(), "upgrade", "--install", release, chart,
		"--namespace", namespace, "--create-namespace", "--values", values}
	if !r.OwnNetwork() {
		for i, server := range r.APIServers() {
			args = append(args, "--set", fmt.Sprintf("apiServers[%d]=%s", i, server))
		}
	}
	tags, err := r.productTags()
	if err != nil {
		return err
	}
	if err := r.writeBootIDs(); err != nil {
		return err
	}
	if _, err := r.command(ctx, "", r.Binary(r.helm), append(args, tags...)...); err != nil {
		return err
	}
	r.say("the chart is installed")
	if err := r.waitReady(ctx); err != nil {
		return err
	}
	return r.wait(ctx, "Hythe is ready", func() (string, error) { return r.incomplete(ctx, namespace) })
}
