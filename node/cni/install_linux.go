package cni

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hythe.dev/hythe/internal/atomicfile"
)

// ConflistName is the name of the configuration list in the runtime's folder.
const ConflistName = "10-hythe.conflist"

// conflistVersion is the newest that containerd 1.6 understands.
const conflistVersion = "1.0.0"

// InstallOptions say where what the plugin needs comes from and goes to.
type InstallOptions struct {
	// Plugin is the path of the plugin's binary, which is copied, also as LoopbackName where there is none of that
	// name. Empty means that both are in BinDir already.
	Plugin string
	// BinDir and ConfDir are the runtime's folders, for example /opt/cni/bin and /etc/cni/net.d.
	BinDir, ConfDir string
	// RunDir gets the Config, DataDir the leases. All paths are as the runtime's process sees them.
	RunDir, DataDir string
	// BootIDFile is normally the constant of that name; empty means it.
	BootIDFile string
	// HostPorts says that the leases' host ports are served: then the runtime hands them over.
	HostPorts bool
	Config    Config
}

func (o InstallOptions) configFile() string { return filepath.Join(o.RunDir, "cni.json") }
func (o InstallOptions) conflist() string   { return filepath.Join(o.ConfDir, ConflistName) }

// Install lets the runtime attach pods: it puts the plugin's binary, its Config, and last of all the
// configuration list in place. What is right already is not written. Each file is replaced by rename.
func Install(o InstallOptions) error {
	_, err := Reinstall(o)
	return err
}

// Reinstall is Install where it was done before. It returns the paths of what it had to write, as somebody deleted or
// changed it.
func Reinstall(o InstallOptions) (wrote []string, err error) {
	if err := o.Config.Validate(); err != nil {
		return nil, fmt.Errorf("install CNI plugin: %w", err)
	}
	wrote, err = install(o)
	if err != nil {
		return wrote, fmt.Errorf("install CNI plugin: %w", err)
	}
	return wrote, nil
}

func install(o InstallOptions) (wrote []string, err error) {
	for _, dir := range []string{o.BinDir, o.ConfDir, o.RunDir, o.DataDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	plugin, loopback := filepath.Join(o.BinDir, PluginName), filepath.Join(o.BinDir, LoopbackName)
	for _, path := range []string{plugin, loopback, o.configFile(), o.conflist()} {
		if err := atomicfile.Sweep(path); err != nil {
			return nil, err
		}
	}
	note := func(path string, did bool, err error) error {
		if did {
			wrote = append(wrote, path)
		}
		return err
	}
	keep := func(path string, data []byte, mode fs.FileMode) error {
		did, err := atomicfile.Keep(path, data, mode)
		return note(path, did, err)
	}
	if o.Plugin != "" {
		binary, err := os.ReadFile(o.Plugin)
		if err != nil {
			return nil, err
		}
		did, err := installLoopback(o.BinDir, binary)
		if err := note(loopback, did, err); err != nil {
			return wrote, err
		}
		if err := keep(plugin, binary, 0o755); err != nil {
			return wrote, err
		}
	}
	config, err := json.MarshalIndent(o.Config, "", "  ")
	if err != nil {
		return wrote, err
	}
	if err := keep(o.configFile(), append(config, '\n'), 0o644); err != nil {
		return wrote, err
	}
	list, err := o.list()
	if err != nil {
		return wrote, err
	}
	return wrote, keep(o.conflist(), list, 0o644)
}

// list is the configuration list (CNI specification, section 1).
func (o InstallOptions) list() ([]byte, error) {
	bootID := cmp.Or(o.BootIDFile, BootIDFile)
	entry := netConf{Type: PluginName, ConfigFile: o.configFile(), DataDir: o.DataDir, BootIDFile: bootID}
	if o.HostPorts {
		entry.Capabilities = map[string]bool{"portMappings": true}
	}
	for _, path := range []*string{&entry.ConfigFile, &entry.DataDir, &entry.BootIDFile} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = abs
	}
	list := struct {
		CNIVersion string    `json:"cniVersion"`
		Name       string    `json:"name"`
		Plugins    []netConf `json:"plugins"`
	}{conflistVersion, "hythe", []netConf{entry}}
	data, err := json.MarshalIndent(list, "", "  ")
	return append(data, '\n'), err
}

// Uninstall stops the runtime from using the plugin. Its binary and the leases stay, for pods that are to be
// detached.
func Uninstall(o InstallOptions) error {
	var errs []error
	for _, path := range []string{o.conflist(), o.configFile()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("uninstall CNI plugin: %w", err))
		}
	}
	return errors.Join(errs...)
}

// OtherLists names the configuration of other plugins in the runtime's folder.
func OtherLists(confDir string) ([]string, error) {
	entries, err := os.ReadDir(confDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read CNI configurations: %w", err)
	}
	var names []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) { // as libcni reads them
		case ".conf", ".conflist", ".json":
			if !e.IsDir() && e.Name() != ConflistName {
				names = append(names, e.Name())
			}
		}
	}
	return names, nil
}

// Forget removes the leases of a node whose pods are gone. Later pods begin with the first address again.
func Forget(dataDir string) error {
	if err := os.RemoveAll(openStore(dataDir, "").dir); err != nil {
		return fmt.Errorf("remove leases: %w", err)
	}
	return nil
}
