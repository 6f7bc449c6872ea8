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
	// Plugin is the path of the plugin's binary, which is copied. Empty means that it is in BinDir already.
	Plugin string
	// BinDir and ConfDir are the runtime's folders, for example /opt/cni/bin and /etc/cni/net.d.
	BinDir, ConfDir string
	// RunDir gets the Config, DataDir the leases. All paths are as the runtime's process sees them.
	RunDir, DataDir string
	// BootIDFile is normally the constant of that name; empty means it.
	BootIDFile string
	Config     Config
}

func (o InstallOptions) configFile() string { return filepath.Join(o.RunDir, "cni.json") }
func (o InstallOptions) conflist() string   { return filepath.Join(o.ConfDir, ConflistName) }

// Install lets the runtime attach pods: it puts the plugin's binary, its Config, and last of all the
// configuration list in place. What is right already is not written. Each file is replaced by rename.
func Install(o InstallOptions) error {
	if err := o.Config.Validate(); err != nil {
		return fmt.Errorf("install CNI plugin: %w", err)
	}
	if err := install(o); err != nil {
		return fmt.Errorf("install CNI plugin: %w", err)
	}
	return nil
}

func install(o InstallOptions) error {
	for _, dir := range []string{o.BinDir, o.ConfDir, o.RunDir, o.DataDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, path := range []string{filepath.Join(o.BinDir, PluginName), o.configFile(), o.conflist()} {
		if err := atomicfile.Sweep(path); err != nil {
			return err
		}
	}
	if o.Plugin != "" {
		binary, err := os.ReadFile(o.Plugin)
		if err != nil {
			return err
		}
		if _, err := atomicfile.Keep(filepath.Join(o.BinDir, PluginName), binary, 0o755); err != nil {
			return err
		}
	}
	if err := installLoopback(o.BinDir); err != nil {
		return err
	}
	config, err := json.MarshalIndent(o.Config, "", "  ")
	if err != nil {
		return err
	}
	if _, err := atomicfile.Keep(o.configFile(), append(config, '\n'), 0o644); err != nil {
		return err
	}
	list, err := o.list()
	if err != nil {
		return err
	}
	_, err = atomicfile.Keep(o.conflist(), list, 0o644)
	return err
}

// list is the configuration list (CNI specification, section 1).
func (o InstallOptions) list() ([]byte, error) {
	bootID := cmp.Or(o.BootIDFile, BootIDFile)
	entry := netConf{Type: PluginName, ConfigFile: o.configFile(), DataDir: o.DataDir, BootIDFile: bootID}
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

// Forget removes the leases of a node whose pods are gone. Later pods begin with the first address again.
func Forget(dataDir string) error {
	if err := os.RemoveAll(openStore(dataDir, "").dir); err != nil {
		return fmt.Errorf("remove leases: %w", err)
	}
	return nil
}
