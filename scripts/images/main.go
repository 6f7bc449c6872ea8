package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// options say what to build from what.
type options struct {
	// Root is the checkout, and Go the Go command.
	Root, Go string
	// Version is the tag of the images and what hythe calls itself; Revision is the commit.
	Version, Revision string
	// Created is the time of the commit.
	Created time.Time
	// Arches are GOARCH names, in order.
	Arches []string
	// Out is the folder for the archives, and Cache the one for layers.
	Out, Cache string
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	built, err := build(o)
	if err != nil {
		return err
	}
	return report(out, built)
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	f.StringVar(&o.Root, "root", "../..", "the checkout")
	f.StringVar(&o.Go, "go", "go", "the Go command")
	f.StringVar(&o.Version, "version", "dev", "tag of the images")
	f.StringVar(&o.Out, "out", "../../bin/images", "folder for the archives")
	arches := f.String("arch", "amd64,arm64", "architectures")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.Arches = strings.Split(*arches, ",")
	for _, arch := range o.Arches {
		if _, ok := machines[arch]; !ok {
			return o, fmt.Errorf("build for %q: only amd64 and arm64 are known", arch)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return o, fmt.Errorf("find the cache folder: %w", err)
	}
	o.Cache = filepath.Join(cache, "hythe", "images")
	if o.Root, err = filepath.Abs(o.Root); err != nil {
		return o, err
	}
	return o, o.commit()
}

// commit reads time and name of the commit. SOURCE_DATE_EPOCH is for sources without git.
func (o *options) commit() error {
	o.Revision, _ = output(o.Root, nil, "git", "rev-parse", "HEAD")
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		var err error
		if epoch, err = output(o.Root, nil, "git", "log", "-1", "--format=%ct"); err != nil {
			return fmt.Errorf("read the time of the commit (or set SOURCE_DATE_EPOCH): %w", err)
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("read SOURCE_DATE_EPOCH: %w", err)
	}
	o.Created = time.Unix(seconds, 0).UTC()
	return nil
}

// output runs a command in a folder and returns what it prints, without space around it. Its messages go to standard error.
func output(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// build makes all images and writes them.
func build(o options) ([]built, error) {
	if err := errors.Join(os.MkdirAll(o.Out, 0o755), os.MkdirAll(filepath.Join(o.Cache, "layers"), 0o755)); err != nil {
		return nil, fmt.Errorf("make folders: %w", err)
	}
	work, err := os.MkdirTemp(o.Cache, ".build-")
	if err != nil {
		return nil, fmt.Errorf("make a folder to build in: %w", err)
	}
	defer os.RemoveAll(work)
	var all []built
	for _, arch := range o.Arches {
		in, err := gather(o, arch, filepath.Join(work, arch))
		if err != nil {
			return nil, err
		}
		for _, s := range []spec{hytheImage(in), envoyImage(in)} {
			b, err := o.assemble(s, arch)
			if err != nil {
				return nil, fmt.Errorf("make %s for %s: %w", s.Name, arch, err)
			}
			all = append(all, b)
		}
	}
	return all, errors.Join(writeLayouts(o, all), o.prune())
}

// assemble makes one image, looks whether it is as promised, and writes its archive.
func (o options) assemble(s spec, arch string) (built, error) {
	image, err := newImage(o, s, arch)
	if err != nil {
		return built{}, err
	}
	b := built{Spec: s, Arch: arch, Image: image, File: filepath.Join(o.Out, s.Short()+"-"+arch+".tar")}
	if err := inspect(image, arch, []string{o.Root, o.Cache}); err != nil {
		return built{}, err
	}
	if b.Digest, err = image.Digest(); err != nil {
		return built{}, err
	}
	return b, writeArchive(b, o.Version)
}

// report prints a line for each image.
func report(out io.Writer, all []built) error {
	for _, b := range all {
		info, err := os.Stat(b.File)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%-24s %-6s %5.1f MB  %s\n", cmp.Or(b.Spec.Name, "?"), b.Arch, float64(info.Size())/1e6, b.Digest)
		if err != nil {
			return err
		}
	}
	return nil
}
