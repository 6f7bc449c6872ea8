package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hythe.dev/hythe/internal/inspect"
	"hythe.dev/hythe/internal/run"
)

// maxFile is the most of one file that is kept, in bytes: its end.
const maxFile = 4 << 20

// Options are what goes into a bundle. All may be empty.
type Options struct {
	// Cluster are the processes that are asked, for Questions under /inspect.
	Cluster   *inspect.Cluster
	Questions []string
	// Extra are further files by name, as text.
	Extra map[string][]byte
	// Logs is a folder of logs.
	Logs string
	// Say is told what is being done; nil for nobody.
	Say func(format string, args ...any)
	// Now is the time of the bundle.
	Now time.Time
}

// A writer is a bundle in the making. Everything that goes in is scrubbed here.
type writer struct {
	root string
	tar  *tar.Writer
	now  time.Time
	errs []string
}

// Write writes the bundle, gzip of tar. What cannot be read is named in errors.txt and keeps nothing else out; an error is
// that of w.
func Write(ctx context.Context, w io.Writer, o Options) error {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	compressed := gzip.NewWriter(w)
	b := &writer{root: "hythe-support-" + o.Now.UTC().Format("20060102-150405"), tar: tar.NewWriter(compressed), now: o.Now}
	var errs []error
	for _, name := range slices.Sorted(keys(o.Extra)) {
		errs = append(errs, b.add(name, o.Extra[name]))
	}
	if o.Cluster != nil {
		for _, err := range o.Cluster.Silent {
			b.errs = append(b.errs, err.Error())
		}
		errs = append(errs, b.addProcesses(ctx, o)...)
	}
	if o.Logs != "" {
		errs = append(errs, b.addLogs(o.Logs, o.Say))
	}
	if len(b.errs) > 0 {
		errs = append(errs, b.add("errors.txt", []byte(strings.Join(b.errs, "\n")+"\n")))
	}
	errs = append(errs, b.tar.Close(), compressed.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write support bundle: %w", err)
	}
	return nil
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// add puts a file in, without its secrets.
func (b *writer) add(name string, data []byte) error {
	data = Scrub(data) // before anything is cut off: half a secret is not known for one
	if cut := len(data) - maxFile; cut > 0 {
		data = append(fmt.Appendf(nil, "[the first %d bytes are left out]\n", cut), data[cut:]...)
	}
	header := &tar.Header{Name: path.Join(b.root, name), Mode: 0o600, Size: int64(len(data)), ModTime: b.now, Format: tar.FormatPAX}
	if err := b.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := b.tar.Write(data)
	return err
}

// A file is one answer of a process.
type file struct {
	name string
	data []byte
}

// addProcesses asks all processes at the same time, and adds what they say in their order.
func (b *writer) addProcesses(ctx context.Context, o Options) []error {
	files := make([][]file, len(o.Cluster.Processes))
	failed := make([][]string, len(o.Cluster.Processes))
	var wg sync.WaitGroup
	for i, p := range o.Cluster.Processes {
		wg.Go(func() { files[i], failed[i] = askAll(ctx, p, o.Questions) })
	}
	wg.Wait()
	var errs []error
	for i, p := range o.Cluster.Processes {
		o.Say("%s: %d answers", p.Name(), len(files[i]))
		for _, f := range files[i] {
			errs = append(errs, b.add(path.Join("processes", p.Name(), f.name), f.data))
		}
		b.errs = append(b.errs, failed[i]...)
	}
	return errs
}

// askAll asks one process for all that it tells.
func askAll(ctx context.Context, p *inspect.Process, questions []string) (files []file, failed []string) {
	add := func(name string, data []byte, err error) {
		switch {
		case err == nil:
			files = append(files, file{name, data})
		case !errors.Is(err, run.ErrNotFound): // not every process has every answer
			failed = append(failed, fmt.Sprintf("%s: %s: %v", p.Name(), name, err))
		}
	}
	ready := "ready\n"
	if err := p.Ready(ctx); err != nil {
		ready = err.Error() + "\n"
	}
	add("ready.txt", []byte(ready), nil)
	for _, q := range questions {
		raw, err := p.Raw(ctx, q)
		add(path.Join("inspect", q+".json"), indent(Scrub(raw)), err) // all in one line still
	}
	pages, err := p.Pages(ctx)
	if err != nil {
		add("debug", nil, err)
	}
	for _, page := range pages {
		text, err := p.Text(ctx, page)
		add(path.Join("debug", page+".txt"), []byte(text), err)
	}
	metrics, err := p.Metrics(ctx)
	add("metrics.txt", []byte(metrics), err)
	return files, failed
}

// indent makes JSON readable.
func indent(raw []byte) []byte {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return raw
	}
	return append(b.Bytes(), '\n')
}

// addLogs adds the ends of the logs in a folder.
func (b *writer) addLogs(dir string, say func(string, ...any)) error {
	var errs []error
	count := 0
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := tail(name)
		if err != nil {
			b.errs = append(b.errs, err.Error())
			return nil
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		count++
		errs = append(errs, b.add(path.Join("logs", filepath.ToSlash(relative)), data))
		return nil
	})
	if err != nil {
		b.errs = append(b.errs, fmt.Sprintf("read logs: %v", err))
	}
	say("%s: %d logs", dir, count)
	return errors.Join(errs...)
}

// tail reads the end of a file, from the beginning of a line.
func tail(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() <= maxFile {
		return io.ReadAll(f)
	}
	if _, err := f.Seek(-maxFile, io.SeekEnd); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	if at := bytes.IndexByte(data, '\n'); at >= 0 {
		data = data[at+1:]
	}
	return data, err
}
