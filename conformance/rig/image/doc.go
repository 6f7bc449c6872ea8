// Package image writes container images without a container engine: one layer, in the format of "docker save", which
// containerd imports.
package image
