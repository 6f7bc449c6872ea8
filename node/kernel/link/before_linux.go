package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/atomicfile"
)

// A setting is what a sysctl was before Hythe changed it, and what it was changed to.
type setting struct {
	Was string `json:"was"`
	Set string `json:"set"`
}

// before is a file that remembers, by name, what sysctls were. The zero value remembers nothing.
type before struct{ file string }

// Remember keeps in a file what sysctls were before they are changed, for Restore.
func (l *Links) Remember(file string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.space.before = before{file}
}

// note is called before a change. The first value of a sysctl stays, over restarts and reboots.
func (b before) note(c Sysctl, was string) error {
	if b.file == "" || strings.Contains(c.Name, OverlayName) || strings.Contains(c.Name, "/"+PodPrefix) {
		return nil // those go with their link
	}
	all, err := b.read()
	if err != nil {
		return err
	}
	if first, ok := all[c.Name]; ok {
		was = first.Was
	}
	if all[c.Name] == (setting{was, c.Value}) {
		return nil
	}
	all[c.Name] = setting{was, c.Value}
	data, err := json.Marshal(all)
	if err == nil {
		err = atomicfile.Write(b.file, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember sysctls: %w", err)
	}
	return nil
}

func (b before) read() (map[string]setting, error) {
	all := map[string]setting{}
	data, err := os.ReadFile(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read what sysctls were: %w: remove the file if it is damaged", err)
	}
	return all, nil
}

// Forwarders names the links of the namespace that tell of somebody else who forwards packets: bridges, as those of
// container engines and virtual machines, and tunnels, if they are up. The overlay and the links of pods are none.
func Forwarders() ([]string, error) {
	s, err := currentSpace()
	if err != nil {
		return nil, err
	}
	defer s.close()
	links, err := dump("links", s.nl.LinkList)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		at := l.Attrs()
		if at.Flags&net.FlagUp == 0 || at.Name == OverlayName {
			continue
		}
		switch l.Type() {
		case "bridge", "openvswitch", "vxlan", "geneve", "wireguard", "tuntap", "tun", "ipip", "sit", "gre", "gretap", "ip6tnl", "ip6gre", "ip6gretap":
			names = append(names, at.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// forwarding says whether a sysctl makes the node forward packets.
func forwarding(name string) bool {
	return name == "net/ipv4/ip_forward" || name == "net/ipv6/conf/all/forwarding"
}

// Restore gives sysctls back the values that a file of Remember has, and removes the file. A sysctl that somebody
// changed since is left alone, and so is forwarding if others need it: see Forwarders. It goes on after an error, and
// may be called again.
func Restore(file string, others bool) error {
	all, err := before{file}.read()
	if err != nil {
		return err
	}
	var errs []error
	// Forwarding goes first, as the last in the order of names: to change it changes others, see ip-sysctl of the kernel.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(all))) {
		if others && forwarding(name) {
			continue
		}
		is, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // its interface is gone
		}
		if err == nil && strings.TrimSpace(string(is)) == all[name].Set {
			err = writeSysctl(name, all[name].Was)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("restore sysctl %s: %w", name, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what sysctls were: %w", err)
	}
	return nil
}

// writeSysctl writes to HostProcSys where /proc/sys is read-only.
func writeSysctl(name, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644)
	if errors.Is(err, unix.EROFS) {
		if host := os.WriteFile(filepath.Join(HostProcSys, name), []byte(value), 0o644); !errors.Is(host, fs.ErrNotExist) {
			return host
		}
	}
	return err
}
