package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"hythe.dev/hythe/internal/lab/topology"
)

// A Node is a machine that gets all kinds of namespaces.
type Node struct {
	Name string
	// Namespace is the name of its network namespace.
	Namespace string
	// Dir holds what of it survives a reboot.
	Dir string
	// Program is the rig's own binary, which is started again as the node's first process.
	Program string
	// Log is the file for what the first process says.
	Log string
}

// InitCommand and EnterCommand are the rig's commands that run Init and Enter.
const (
	InitCommand  = "node-init"
	EnterCommand = "node-enter"
)

// Boot starts the node's first process in the node's network namespace, which must be there, and returns when the node
// can run programs.
func (n Node) Boot(bootID string) error {
	for _, dir := range []string{"var-lib", "var-log", "opt", "etc", "etc-work"} {
		if err := os.MkdirAll(filepath.Join(n.Dir, dir), 0o755); err != nil {
			return fmt.Errorf("boot %s: %w", n.Name, err)
		}
	}
	for name, data := range map[string]string{
		"boot_id": bootID + "\n", "etc/hostname": n.Name + "\n", "etc/machine-id": strings.ReplaceAll(bootID, "-", "") + "\n",
		"etc/resolv.conf": "search hythe.test\n", "etc/hosts": "127.0.0.1 localhost\n",
	} {
		file := filepath.Join(n.Dir, name)
		if name != "boot_id" {
			if _, err := os.Stat(file); err == nil {
				continue
			}
		}
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			return fmt.Errorf("boot %s: %w", n.Name, err)
		}
	}
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("boot %s: %w", n.Name, err)
	}
	defer log.Close()
	answer, said, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("boot %s: %w", n.Name, err)
	}
	defer answer.Close()
	cmd := exec.Command(n.Program, InitCommand, n.Name, n.Dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{said}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	err = topology.Start(n.Namespace, cmd)
	said.Close()
	if err != nil {
		return fmt.Errorf("boot %s: %w", n.Name, err)
	}
	text, err := io.ReadAll(answer)
	if err == nil && string(text) != ready {
		err = errors.New("first process: " + string(text))
	}
	if err != nil {
		return fmt.Errorf("boot %s: %w", n.Name, err)
	}
	return nil
}

// InitPID is the machine's pid of the node's first process; ok is false when the node is off.
func (n Node) InitPID() (pid int, ok bool) {
	for _, pid := range topology.Processes([]string{n.Namespace}) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		args := strings.Split(string(line), "\x00")
		if len(args) > 2 && args[1] == InitCommand && args[2] == n.Name && isInit(pid) {
			return pid, true
		}
	}
	return 0, false
}

// Path is where the machine sees a path of the node, while it is on.
func (n Node) Path(path string) (string, error) {
	pid, ok := n.InitPID()
	if !ok {
		return "", fmt.Errorf("find %s on %s: the node is off", path, n.Name)
	}
	return fmt.Sprintf("/proc/%d/root%s", pid, path), nil
}

// isInit says whether a process is the first one of a pid namespace (proc_pid_status(5), NSpid).
func isInit(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			ids := strings.Fields(rest)
			return len(ids) > 1 && ids[len(ids)-1] == "1"
		}
	}
	return false
}

// Halt kills the node's first process, and with it everything on the node, and removes its cgroups.
func (n Node) Halt() error {
	if pid, ok := n.InitPID(); ok {
		if start, ok := topology.StartTime(pid); ok {
			if err := topology.KillProcess(pid, start); err != nil {
				return fmt.Errorf("halt %s: %w", n.Name, err)
			}
		}
	}
	if err := removeCgroups(n.Name); err != nil {
		return fmt.Errorf("halt %s: %w", n.Name, err)
	}
	return nil
}
