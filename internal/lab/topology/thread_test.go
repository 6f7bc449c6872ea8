package topology

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const endsFirstThread = "HYTHE_TEST_ENDS_FIRST_THREAD"

func TestMain(m *testing.M) {
	if os.Getenv(endsFirstThread) != "" {
		endFirstThread()
	}
	os.Exit(m.Run())
}

// endFirstThread ends the thread that the process began with; it lives on by the others.
func endFirstThread() {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		_, _ = os.Stdout.WriteString("\n")
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // of the thread, not of the process
	}
	go endFirstThread() // on another thread, as this one is locked
	select {}
}

// A process of which the first thread has ended still has its ports: it is waited for.
func TestStartTimeOfThreads(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), endsFirstThread+"=1")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // killed
	pid := cmd.Process.Pid
	start, ok := StartTime(pid)
	if !ok {
		t.Fatal("no start time")
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(stat, []byte(") Z ")) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the first thread does not end: %s", stat)
		}
	}
	if now, ok := StartTime(pid); !ok || now != start {
		t.Error("a process with threads that run counts as gone")
	}
	if err := KillProcess(pid, start); err != nil {
		t.Error(err)
	}
	if _, ok := StartTime(pid); ok {
		t.Error("a killed process counts as running")
	}
}
