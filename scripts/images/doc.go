// Command images writes Hythe's container images without Docker.
//
//	go build ──> /hythe, /hythe-cni ──┐
//	scripts/envoy.sh ──> Envoy ───────┼─> layers ──> image ──> bin/images/hythe-amd64.tar …   (ctr, docker load)
//	glibc.sh ──> libc6 of Debian ─────┘                   └──> bin/images/oci/hythe           (skopeo, crane)
//
// There are two images, each for amd64 and arm64:
//
//	hythe.dev/hythe        /hythe, /hythe-cni; nothing else runs in it
//	hythe.dev/hythe-envoy  /usr/local/bin/envoy and the glibc that it needs; /hythe, for bootstrap and drain
//
// Both run as user and group 65532, and hold no shell, no setuid file, and no directory that anybody may write to.
// They run with a read-only root file system and without any capability. /usr/share/hythe/manifest.txt tells where
// each file is from; licenses are in /usr/share/doc.
//
// # What Envoy needs at run time
//
// It writes to nothing but the directory of its admin socket (/run/hythe/gateway in the chart, shared with the gateway,
// owned by 65532). Start it with --disable-hot-restart: otherwise it makes shared memory in /dev/shm and a socket, which
// two Envoys of one node would have to share out by --base-id. It needs no /tmp, no home and no writable /dev/shm. Its
// bootstrap must be a file, and there is no shell that could redirect one: let an init container run
// hythe gateway bootstrap --output.
//
// # Reproducible
//
// The same commit and tags, and the same version of libc6, give the same bytes, wherever and whenever; make images takes
// the compiler that go.mod names. Files have the time 1980-01-01, and only the image's configuration has the time of the
// commit (SOURCE_DATE_EPOCH): so the layers of Envoy and glibc stay what they are from one release to the next, and
// nodes pull them once.
//
// Envoy's wheel is pinned by hash. glibc.lock pins libc6 by version and hash, but Debian's mirrors drop a version when
// they get the next one. Then the image takes what Debian signs now and says so: on standard error, in the label
// dev.hythe.glibc.version, and in the manifest. With IMAGES_LOCKED=1 it stops instead.
package main
