package kubetest

import "runtime"

// startLocked starts p from a thread that lives as long as p does: the kernel kills p when the thread that started
// it ends, and Go's threads may end before the test.
func startLocked(p *process) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
		close(p.done)
	}()
	return <-started
}
