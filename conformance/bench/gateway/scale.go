package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"hythe.dev/hythe/conformance/bench/gateway/scale"
)

// scale measures what many TLS hosts cost.
func (b *bench) scale(ctx context.Context) error {
	sizes, own, changes, handshakes := []int{100, 1000, 10_000, 50_000}, 1000, 50, 2000
	if b.short {
		sizes, own, changes, handshakes = []int{50}, 10, 3, 20
	}
	var errs []error
	for _, hosts := range sizes {
		if b.results.has("scale", hosts) && !b.again || ctx.Err() != nil {
			continue
		}
		dir := filepath.Join(b.dir, fmt.Sprintf("scale-%d", hosts))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		rows, err := scale.Run(ctx, scale.Options{Envoy: b.envoy, Dir: dir, Hosts: hosts, OwnChains: own, Changes: changes, Handshakes: handshakes})
		errs = append(errs, err)
		for _, r := range rows {
			errs = append(errs, b.results.add(measurement{"scale", r.What, "hythe", r.Hosts}, r.Values, err))
		}
	}
	return errors.Join(errs...)
}
