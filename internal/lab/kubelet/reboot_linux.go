package kubelet

import (
	"context"
	"syscall"
)

// PowerOff ends all of the pod at once, as its machine ends: no container is asked, and nothing is detached. It returns
// when no process of the pod is left. PowerOn must follow.
func (r *Running) PowerOff() {
	r.mu.Lock()
	r.on = make(chan struct{})
	close(r.off)
	r.mu.Unlock()
	select {
	case <-r.down:
	case <-r.gone:
	}
}

// PowerOn lets the kubelet of the machine that was started again make the pod anew.
func (r *Running) PowerOn() {
	r.mu.Lock()
	r.off, r.down = make(chan struct{}), make(chan struct{})
	on := r.on
	r.mu.Unlock()
	close(on)
}

// poweredOff is closed when the machine is switched off.
func (r *Running) poweredOff() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.off
}

// restarted waits, if the machine is off, until it is on again, and says whether the pod is to be made anew: not if
// it ended meanwhile.
func (r *Running) restarted(ctx context.Context) bool {
	select {
	case <-r.poweredOff():
	default:
		return false
	}
	r.mu.Lock()
	on, down := r.on, r.down
	r.containers = nil
	r.sandbox++
	r.mu.Unlock()
	close(down)
	select {
	case <-ctx.Done():
		return false
	case <-on:
	}
	r.report(func(u *Update) { u.Ready, u.Message = false, "starts again" })
	select {
	case <-r.end:
		return false
	default:
		return true
	}
}

// kill ends a container for good.
func kill(p *Process, stop context.CancelFunc) {
	_ = p.Kill(syscall.SIGKILL, true)
	stop()
}
