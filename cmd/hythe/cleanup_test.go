package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/internal/testenv"
	"hythe.dev/hythe/node/cni"
	"hythe.dev/hythe/node/kernel/link"
	"hythe.dev/hythe/node/kernel/nft"
	"hythe.dev/hythe/node/overlay"
	"hythe.dev/hythe/node/proxy"
)

// TestCleanup puts on a node what an agent does, and takes it away by the command: not while the agent runs, not while
// there are pods, and then all of it but what is not ours.
func TestCleanup(t *testing.T) {
	testenv.Root(t)
	testenv.NetNS(t)
	dir := t.TempDir()
	sub := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	up := func(l netlink.Link) {
		t.Helper()
		must(netlink.LinkAdd(l))
		must(netlink.LinkSetUp(l))
	}
	lo, err := netlink.LinkByName("lo")
	must(err)
	must(netlink.LinkSetUp(lo))
	eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "wire"}
	up(eth0)
	must(netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 11), Mask: net.CIDRMask(24, 32)}}))
	snapshot := &model.Snapshot{Nodes: map[string]*model.Node{
		"n1": {Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.11")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
		"n2": {Name: "n2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.12")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}},
	}}
	links, err := link.New(slog.New(slog.DiscardHandler))
	must(err)
	defer links.Close()
	state, _ := overlay.Build(snapshot, "n1", overlay.Settings{})
	must(links.Set(t.Context(), state))
	table, err := nft.New(slog.New(slog.DiscardHandler), nil)
	must(err)
	services, _ := proxy.Build(snapshot, "n1", proxy.DefaultSettings())
	must(table.Set(t.Context(), services))
	must(os.MkdirAll(sub("data/cni"), 0o700))
	must(os.WriteFile(sub("data/cni/leases.json"), []byte("{}"), 0o600))
	must(os.WriteFile(sub("data/vips.json"), []byte("{}"), 0o600))
	must(cni.Install(cni.InstallOptions{BinDir: sub("bin"), ConfDir: sub("conf"), RunDir: sub("run"), DataDir: sub("data"),
		Config: cni.Config{PodCIDRs: snapshot.Nodes["n1"].PodCIDRs, MTU: 1450}}))

	run := func(more ...string) (string, error) {
		var out bytes.Buffer
		cmd := newCommand()
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"node", "cleanup", "--data", sub("data"), "--run", sub("run"), "--cni-conf-dir", sub("conf"), "--admin", "unix:" + sub("admin.sock")}, more...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	refused := func(what string) {
		t.Helper()
		out, err := run()
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s%v, want %q", out, err, what)
		}
	}
	l, err := net.Listen("unix", sub("admin.sock"))
	must(err)
	refused("still runs")
	must(l.Close())
	refused("holds the table")
	must(table.Close()) // the agent ends
	pod := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link.PodPrefix + "0123456789a"}, PeerName: "pod0"}
	up(pod)
	refused("--force")
	if _, err := os.Stat(sub("conf/" + cni.ConflistName)); err != nil {
		t.Error("something was removed although the command refused")
	}
	out, err := run("--force")
	if err != nil {
		t.Fatalf("%s%v", out, err)
	}
	list, err := netlink.LinkList()
	must(err)
	for _, l := range list {
		if name := l.Attrs().Name; name != "lo" && name != "eth0" && name != "wire" {
			t.Errorf("link %s is left", name)
		}
	}
	if text, err := exec.Command("nft", "list", "tables").CombinedOutput(); err != nil || len(text) > 0 {
		t.Errorf("tables left: %s, %v", text, err)
	}
	for _, name := range []string{"conf/" + cni.ConflistName, "run/cni.json", "data/cni", "data/vips.json"} {
		if _, err := os.Stat(sub(name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	if out, err := run(); err != nil {
		t.Errorf("once more: %s%v", out, err)
	}
}

// TestOwn gives folders to Envoy's user, what the gateway keeps for itself to nobody else, and takes back what others have.
func TestOwn(t *testing.T) {
	testenv.Root(t)
	shared, private := filepath.Join(t.TempDir(), "shared"), filepath.Join(t.TempDir(), "private")
	if err := errors.Join(os.Mkdir(private, 0o777), os.Chown(private, 1, 1), os.Chmod(private, 0o777)); err != nil { //nolint:gosec // as others left it
		t.Fatal(err)
	}
	for range 2 { // each start of a pod does it
		cmd := newCommand()
		cmd.SetArgs([]string{"chart", "own", shared, "--private", private, "--uid=65532"})
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]fs.FileMode{shared: 0o750, private: 0o700} {
			var stat unix.Stat_t
			if err := unix.Stat(path, &stat); err != nil {
				t.Fatal(err)
			}
			if got := fs.FileMode(stat.Mode & 0o7777); got != want || stat.Uid != 65532 || stat.Gid != 65532 {
				t.Errorf("%s: mode %o of %d:%d", filepath.Base(path), got, stat.Uid, stat.Gid)
			}
		}
	}
}

// TestRemoveFolder empties a folder that is a mount, as those of the chart's cleanup are, and removes another.
func TestRemoveFolder(t *testing.T) {
	testenv.Root(t)
	plain, mount, source := filepath.Join(t.TempDir(), "plain"), t.TempDir(), t.TempDir()
	root, below := t.TempDir(), t.TempDir()
	inReadOnly := filepath.Join(root, "hythe")
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: its mounts end with it
		result <- func() error {
			if err := errors.Join(unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
				unix.Mount(source, mount, "", unix.MS_BIND, ""),
				unix.Mount("tmpfs", root, "tmpfs", 0, ""), os.Mkdir(inReadOnly, 0o700), unix.Mount(below, inReadOnly, "", unix.MS_BIND, ""),
				unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
				return err
			}
			for _, dir := range []string{plain, mount, inReadOnly} {
				if err := errors.Join(os.MkdirAll(filepath.Join(dir, "gateway"), 0o700), os.WriteFile(filepath.Join(dir, "gateway/xds"), nil, 0o600),
					os.MkdirAll(filepath.Join(dir, "gateway-cache"), 0o700), os.WriteFile(filepath.Join(dir, "gateway-cache/keys"), nil, 0o600),
					removeFolder(dir), removeFolder(dir)); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	if err := <-result; err != nil {
		t.Error(err)
	}
	for _, dir := range []string{source, below} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("left in the mount: %v, error %v", entries, err)
		}
	}
	if _, err := os.Stat(plain); err == nil {
		t.Error("the plain folder is left")
	}
}
