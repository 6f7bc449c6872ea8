package testenv

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A WallClock sets the wall clock of single processes that were built with its overlay, while they run. The kernel has
// one wall clock only, and it is the machine's. The monotonic clock goes on, as it does when a machine's clock is set.
//
// The Go runtime asks the kernel's vDSO for the time, by an address that it finds at its start. The overlay adds files to
// package main that put a function of their own there (the runtime lets others set it: badlinkname_linux.go), which adds an offset to CLOCK_REALTIME and to no other clock.
type WallClock struct {
	dir, overlay string
}

// wallClockEnv names the folder in which each process has a file named by its pid, with its offset in seconds.
const wallClockEnv = "HYTHE_TEST_WALL_CLOCK"

// NewWallClock makes an overlay, and skips the test for a toolchain that it does not know. Processes that inherit the
// test's environment are under this clock. mains are the folders of the main packages.
func NewWallClock(tb testing.TB, mains ...string) *WallClock {
	tb.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		tb.Fatalf("find the Go toolchain: %v", err)
	}
	asm, ok := map[string]string{"amd64": wallClockAMD64, "arm64": wallClockARM64}[runtime.GOARCH]
	if !ok {
		skip(tb, "the wall clock of a process can be set on amd64 and arm64 only")
	}
	name := "vdso_linux_" + runtime.GOARCH + ".go"
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "src", "runtime", name))
	if err != nil || !strings.Contains(string(source), "vdsoClockgettimeSym uintptr") {
		skip(tb, "%s: %s of its runtime is not as the test knows it, so no wall clock can be set", runtime.Version(), name)
	}
	c := &WallClock{dir: tb.TempDir()}
	files := map[string]string{}
	for _, dir := range mains {
		path, err := filepath.Abs(dir)
		if err != nil {
			tb.Fatal(err)
		}
		files[filepath.Join(path, "wallclock_overlay.go")] = wallClockMain
		files[filepath.Join(path, "wallclock_overlay.s")] = asm
	}
	c.write(tb, files)
	c.Start(tb, 0)
	tb.Setenv(wallClockEnv, c.dir)
	return c
}

// write writes the overlay; go help build says what it looks like.
func (c *WallClock) write(tb testing.TB, files map[string]string) {
	tb.Helper()
	replaced := map[string]string{}
	for name, text := range files {
		replaced[name] = filepath.Join(c.dir, "overlay-"+strconv.Itoa(len(replaced))+filepath.Ext(name))
		if err := os.WriteFile(replaced[name], []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		tb.Fatal(err)
	}
	c.overlay = filepath.Join(c.dir, "overlay.json")
	if err := os.WriteFile(c.overlay, data, 0o644); err != nil {
		tb.Fatal(err)
	}
}

// Overlay is for go build -overlay.
func (c *WallClock) Overlay() string { return c.overlay }

// Start is how far the clocks of processes are off that start from now on, in whole seconds.
func (c *WallClock) Start(tb testing.TB, off time.Duration) { c.put(tb, "start", off, os.O_CREATE) }

// Set sets the clock of a process that runs, in whole seconds. It fails the test if the process was not built with the overlay.
func (c *WallClock) Set(tb testing.TB, pid int, off time.Duration) {
	c.put(tb, strconv.Itoa(pid), off, 0)
}

// put writes 8 bytes at once, which a process may read at any time.
func (c *WallClock) put(tb testing.TB, name string, off time.Duration, flag int) {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(c.dir, name), os.O_WRONLY|flag, 0o644)
	if err != nil {
		tb.Fatalf("set wall clock: %v", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(off/time.Second)), 0); err != nil {
		tb.Fatalf("set wall clock: %v", err)
	}
}

const wallClockMain = `package main

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

//go:linkname vdsoClockgettimeSym runtime.vdsoClockgettimeSym
var vdsoClockgettimeSym uintptr

var (
	wallClockReal   uintptr // zero: there is no vDSO
	wallClockOffset *int64  // seconds, in memory that is shared with the test
)

func wallClockHook() uintptr

func init() {
	dir := os.Getenv("` + wallClockEnv + `")
	start, err := os.ReadFile(dir + "/start")
	if err != nil {
		return
	}
	path := dir + "/" + strconv.Itoa(os.Getpid())
	if err := os.WriteFile(path, start, 0o644); err != nil {
		return
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		return
	}
	memory, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	wallClockOffset = (*int64)(unsafe.Pointer(&memory[0]))
	wallClockReal = vdsoClockgettimeSym
	vdsoClockgettimeSym = wallClockHook()
}
`

// The runtime calls it as a C function, int clock_gettime(clockid_t, struct timespec *), on the system stack.
const wallClockAMD64 = `#include "textflag.h"

TEXT clockGettime<>(SB),NOSPLIT|NOFRAME,$0
	PUSHQ	DI
	PUSHQ	SI
	SUBQ	$8, SP
	MOVQ	·wallClockReal(SB), AX
	TESTQ	AX, AX
	JEQ	syscall
	CALL	AX
	JMP	add
syscall:
	MOVQ	$228, AX
	SYSCALL
add:
	ADDQ	$8, SP
	POPQ	SI
	POPQ	DI
	TESTL	DI, DI
	JNE	done
	MOVQ	·wallClockOffset(SB), CX
	MOVQ	(CX), CX
	ADDQ	CX, (SI)
done:
	RET

TEXT ·wallClockHook(SB),NOSPLIT,$0-8
	LEAQ	clockGettime<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
`

const wallClockARM64 = `#include "textflag.h"

TEXT clockGettime<>(SB),NOSPLIT|NOFRAME,$0
	SUB	$32, RSP
	MOVD	R30, 8(RSP)
	MOVD	R0, 16(RSP)
	MOVD	R1, 24(RSP)
	MOVD	·wallClockReal(SB), R2
	CBZ	R2, syscall
	BL	(R2)
	B	add
syscall:
	MOVD	$113, R8
	SVC
add:
	MOVD	8(RSP), R30
	MOVD	16(RSP), R2
	MOVD	24(RSP), R1
	ADD	$32, RSP
	CBNZW	R2, done
	MOVD	·wallClockOffset(SB), R2
	MOVD	(R2), R2
	MOVD	(R1), R3
	ADD	R2, R3
	MOVD	R3, (R1)
done:
	RET

TEXT ·wallClockHook(SB),NOSPLIT,$0-8
	MOVD	$clockGettime<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET
`
