package host

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// ready is what the first process says when the node can run programs; anything else is what went wrong.
const ready = "ready"

// answerFD is where it says so.
const answerFD = 3

// Init is the node's first process. It makes the node's mounts, starts itself again as the reaper, and ends when killed.
func Init(name, dir string) error {
	if os.Getpid() != 1 {
		return errors.New("is not the first process of a pid namespace")
	}
	answer := os.NewFile(answerFD, "answer")
	if os.Getenv(settledEnv) != "" {
		_, err := answer.WriteString(ready)
		answer.Close()
		if err != nil {
			return err
		}
		reap()
	}
	// What is unshared belongs to this thread; exec makes it the only one.
	runtime.LockOSThread()
	if err := settle(name, dir); err != nil {
		_, _ = answer.WriteString(err.Error())
		return err
	}
	unix.CloseOnExec(int(answer.Fd()))
	if _, err := unix.FcntlInt(answer.Fd(), unix.F_SETFD, 0); err != nil {
		return err
	}
	return unix.Exec(filepath.Join(dir, "../..", "rig"), os.Args, append(os.Environ(), settledEnv+"=1"))
}

const settledEnv = "HYTHE_RIG_SETTLED"

// settle makes the calling thread's surroundings those of the node.
func settle(name, dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	hierarchies, err := readHierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := h.join(name); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := mountAll(nodeMounts(dir)); err != nil {
		return err
	}
	if err := mountAll(cgroupMounts(hierarchies)); err != nil {
		return err
	}
	if err := copyBootID(dir, "/"); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

// BootIDFile is a second place on a node for its boot id, for containers: their own /proc shows the one of the kernel.
const BootIDFile = "/run/hythe/boot_id"

// A mount is one call of mount(2). With make the target is made if it is missing, as a folder.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
	make                 bool
}

func nodeMounts(dir string) []mount {
	bind := func(from, to string) mount {
		return mount{source: filepath.Join(dir, from), target: to, flags: unix.MS_BIND}
	}
	return []mount{
		{source: "proc", target: "/proc", kind: "proc"},
		{source: "sysfs", target: "/sys", kind: "sysfs"},
		{source: "tmpfs", target: "/run", kind: "tmpfs", data: "mode=755"},
		{source: "overlay", target: "/etc", kind: "overlay", data: fmt.Sprintf("lowerdir=/etc,upperdir=%s/etc,workdir=%s/etc-work", dir, dir)},
		bind("opt", "/opt"),
		bind("var-log", "/var/log"),
		bind("boot_id", "/proc/sys/kernel/random/boot_id"),
		bind("var-lib", "/var/lib"),
	}
}

// WriteBootID puts the boot id at BootIDFile again, where somebody removed it.
func (n Node) WriteBootID() error {
	root, err := n.Path("/")
	if err != nil {
		return err
	}
	return copyBootID(n.Dir, root)
}

// copyBootID copies the boot id in the node's folder to BootIDFile below root.
func copyBootID(dir, root string) error {
	file := filepath.Join(root, BootIDFile)
	data, err := os.ReadFile(filepath.Join(dir, "boot_id"))
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = os.WriteFile(file, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write boot id: %w", err)
	}
	return nil
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if m.make {
			if err := os.MkdirAll(m.target, 0o755); err != nil {
				return fmt.Errorf("mount %s: %w", m.target, err)
			}
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// reap collects the processes that nobody else does. It does not return.
func reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	for {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 || err != nil && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		<-children
	}
}
