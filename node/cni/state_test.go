package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"hythe.dev/hythe/internal/golden"
)

// TestBuild compares the text form of a pod's link with testdata/pod.txt.
func TestBuild(t *testing.T) {
	r := Request{"4f1c", "eth0"}
	lease := Lease{Request: r, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:1::5")}}
	got := Build(r, lease, Config{PodCIDRs: ranges("10.244.1.0/24", "fd00:1::/64"), MTU: 1450}).String()
	golden.File(t, "testdata/pod.txt", got)
}

func TestParseConfig(t *testing.T) {
	for _, test := range []struct{ name, in, err string }{
		{"good", `{"podCIDRs":["10.0.0.0/24","fd00::/64"],"mtu":1450}`, ""},
		{"not JSON", `{`, "unexpected end"},
		{"no range", `{"mtu":1450}`, "podCIDRs is empty"},
		{"bad range", `{"podCIDRs":["10.0.0.0"],"mtu":1450}`, "netip.ParsePrefix"},
		{"two of a family", `{"podCIDRs":["10.0.0.0/24","10.0.1.0/24"],"mtu":1450}`, "second of its family"},
		{"no MTU", `{"podCIDRs":["10.0.0.0/24"]}`, "mtu 0"},
		{"small for IPv6", `{"podCIDRs":["fd00::/64"],"mtu":1279}`, "mtu 1279"},
		{"mapped", `{"podCIDRs":["::ffff:10.0.0.0/120"],"mtu":1450}`, "not valid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig([]byte(test.in))
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

// FuzzStdin is all that a runtime and a broken agent can hand to the plugin, up to the kernel: no panic, no path that
// is not absolute, no address outside of the range, none twice, and a result in the version that was asked for.
func FuzzStdin(f *testing.F) {
	conf := `{"cniVersion":"1.0.0","name":"hythe","type":"hythe-cni","configFile":"/run/a","dataDir":"/var/b","bootIDFile":"/proc/c"`
	config := `{"podCIDRs":["10.0.0.0/24","fd00::/64"],"mtu":1450}`
	f.Add([]byte(conf+`}`), []byte(config), "4f1c", "eth0")
	f.Add([]byte(conf+`,"cni.dev/valid-attachments":[{"containerID":"x","ifname":"eth0"}]}`), []byte(`{"podCIDRs":["10.0.0.0/30"],"mtu":68}`), "x", "eth0")
	f.Add([]byte(conf+`,"prevResult":{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.0.0.1/33","interface":-7}],"dns":[]},"runtimeConfig":{"portMappings":[{}]}}`), []byte(config), "x", "a name that is too long for a link")
	f.Add([]byte(strings.Replace(conf, "1.0.0", "0.1.0", 1)+`}`), []byte(`{"podCIDRs":["fe80::1/64"],"mtu":1280}`), "", "")
	f.Add([]byte(strings.Replace(conf, "1.0.0", "9.9.9", 1)+`,"args":{"cni":{"ips":["10.9.9.9"]}}}`), []byte(`{"podCIDRs":["0.0.0.0/0"],"mtu":9000}`), "../../x", "../eth0")
	f.Add([]byte(`{"configFile":"a"}`), []byte(`{}`), "x", "y")
	f.Fuzz(func(t *testing.T, stdin, configFile []byte, containerID, ifName string) {
		c, err := parseNetConf(stdin)
		if err != nil {
			return
		}
		for _, path := range []string{c.ConfigFile, c.DataDir, c.BootIDFile, c.store().file()} {
			if !filepath.IsAbs(path) {
				t.Fatalf("relative path in %+v", c)
			}
		}
		config, err := parseConfig(configFile)
		if err != nil {
			return
		}
		l := &Leases{BootID: "b"}
		seen := map[netip.Addr]bool{}
		for _, r := range []Request{{containerID, ifName}, {containerID, ifName + "2"}, {containerID + "2", ifName}} {
			if name := HostName(r); len(name) > 15 || strings.ContainsAny(name, "/ ") {
				t.Fatalf("link name %q", name)
			}
			lease, err := l.Allocate(r, config.PodCIDRs, 0)
			if err != nil {
				return
			}
			for i, a := range lease.Addresses {
				if !config.PodCIDRs[i].Contains(a) || seen[a] {
					t.Fatalf("%s is not in %s, or given twice", a, config.PodCIDRs[i])
				}
				seen[a] = true
			}
			pod := Build(r, lease, config)
			_ = pod.String()
			var out strings.Builder
			if err := result(pod, lease, "/run/netns/x").print(&out, c.CNIVersion); err != nil {
				continue
			}
			var printed struct {
				CNIVersion string `json:"cniVersion"`
			}
			if err := json.Unmarshal([]byte(out.String()), &printed); err != nil || c.CNIVersion != "" && printed.CNIVersion != c.CNIVersion {
				t.Fatalf("version %q asked for, result %s, %v", c.CNIVersion, out.String(), err)
			}
		}
	})
}

// TestBadStdin says that the plugin answers what it cannot read with an error of the CNI specification, whatever is
// wrong, and changes nothing.
func TestBadStdin(t *testing.T) {
	dir := t.TempDir()
	boot := filepath.Join(dir, "boot_id")
	write(t, boot, "one")
	config := filepath.Join(dir, "cni.json")
	good := func(more string) string {
		return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"hythe","type":"hythe-cni","configFile":%q,"dataDir":%q,"bootIDFile":%q%s}`, config, dir, boot, more)
	}
	for _, test := range []struct {
		name, stdin, config string
		code                uint
	}{
		{"nothing", "", "", types.ErrInvalidNetworkConfig},
		{"no JSON", "{", "", types.ErrInvalidNetworkConfig},
		{"a list", "[]", "", types.ErrInvalidNetworkConfig},
		{"wrong types", good(`,"cni.dev/valid-attachments":7`), "", types.ErrInvalidNetworkConfig},
		{"no paths", `{"cniVersion":"1.0.0","name":"hythe","type":"hythe-cni"}`, "", types.ErrInvalidNetworkConfig},
		{"relative path", strings.Replace(good(""), dir, "x", 1), "", types.ErrInvalidNetworkConfig},
		{"no configuration yet", good(""), "", types.ErrTryAgainLater},
		{"configuration half written", good(""), `{"podCIDRs":["10.0.0`, types.ErrDecodingFailure},
		{"configuration without range", good(""), `{"podCIDRs":[],"mtu":1450}`, types.ErrDecodingFailure},
		{"configuration without MTU", good(""), `{"podCIDRs":["10.0.0.0/24"]}`, types.ErrDecodingFailure},
	} {
		t.Run(test.name, func(t *testing.T) {
			_ = os.Remove(config)
			if test.config != "" {
				write(t, config, test.config)
			}
			p := Plugin{Stdout: io.Discard, Stderr: io.Discard, Now: func() Uptime { return 0 }}
			err := p.Add(&skel.CmdArgs{ContainerID: "c", IfName: "eth0", Netns: "/run/netns/none", StdinData: []byte(test.stdin)})
			var e *types.Error
			if !errors.As(err, &e) || e.Code != test.code || e.Msg == "" {
				t.Errorf("error %v, want code %d", err, test.code)
			}
			if _, err := os.Stat(filepath.Join(dir, "cni")); err == nil {
				t.Error("something was written")
			}
		})
	}
}

// TestStoreCorrupt says that a file that cannot be read is an error, never an empty one: addresses are in use.
func TestStoreCorrupt(t *testing.T) {
	dir := t.TempDir()
	s := store{dir: dir, bootIDFile: filepath.Join(dir, "boot_id")}
	write(t, s.bootIDFile, "one\n")
	for _, content := range []string{"", "{", `{"leases":[]}`, `[]`} {
		write(t, s.file(), content)
		err := s.update(func(*Leases) (bool, error) { return true, nil })
		if err == nil || !strings.Contains(err.Error(), "leases") {
			t.Errorf("%q: error %v", content, err)
		}
	}
	write(t, s.file(), `{"bootID":"other","leases":[{"containerID":"c","ifName":"eth0","addresses":["10.0.0.1"]}]}`)
	err := s.update(func(l *Leases) (bool, error) {
		if l.BootID != "one" || len(l.Leases) != 0 {
			t.Errorf("leases of another boot: %+v", l)
		}
		return false, nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestNoBootIDFile says that those who name no file with the boot id get the machine's, as the agent does.
func TestNoBootIDFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadLeases(dir, ""); err != nil {
		t.Error(err)
	}
	if _, err := Sweep(dir, "", Now(), 0); err != nil {
		t.Error(err)
	}
}

// TestInstall says that the list comes last, and that what is right is not written again.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	sub := func(s string) string { return filepath.Join(dir, s) }
	o := InstallOptions{Plugin: sub("plugin"), BinDir: sub("bin"), ConfDir: sub("conf"), RunDir: sub("run"), DataDir: sub("data"),
		Config: Config{PodCIDRs: ranges("10.0.0.0/24"), MTU: 1450}}
	if err := Install(o); err == nil {
		t.Error("Install without a plugin succeeded")
	}
	if _, err := os.Stat(o.conflist()); err == nil {
		t.Error("the list was written although the plugin is missing")
	}
	write(t, o.Plugin, "binary")
	files := []string{filepath.Join(o.BinDir, PluginName), o.configFile(), o.conflist()}
	before := installed(t, o, files)
	if again := installed(t, o, files); again != before {
		t.Errorf("second Install wrote: %v, then %v", before, again)
	}
	o.Config.MTU = 1400
	if changed := installed(t, o, files); changed[0] != before[0] || changed[1] == before[1] || changed[2] != before[2] {
		t.Errorf("new MTU: %v, then %v; want the configuration only", before, changed)
	}
	if err := Uninstall(o); err != nil {
		t.Error(err)
	}
	if err := Uninstall(o); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(o.conflist()); err == nil {
		t.Error("the list is still there")
	}
}

// installed installs, and returns which file is behind each path.
func installed(t *testing.T, o InstallOptions, files []string) (ids [3]uint64) {
	t.Helper()
	if err := Install(o); err != nil {
		t.Fatal(err)
	}
	for i, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = inode(info)
	}
	return ids
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
