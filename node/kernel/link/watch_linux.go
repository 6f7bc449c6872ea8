package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// resync is how often the kernel is read although nothing was heard.
	resync = 10 * time.Second
	// settle is how long after an event the kernel is read, so that a burst costs one reading.
	settle = 100 * time.Millisecond
	// retry is how soon a pass that failed is repeated.
	retry = time.Second
)

// Run repairs what others change, until ctx is done: when the kernel tells of it, and every 10 s. It does
// nothing before the first Set.
func (l *Links) Run(ctx context.Context) error {
	socket, err := nl.SubscribeAt(other(l.space.ns), netns.None(), unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		l.listen(ctx, socket)
	}()
	defer func() {
		socket.Close()
		<-listening
	}()

	next := time.NewTimer(resync)
	defer next.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.kick:
			next.Reset(settle)
			select {
			case <-ctx.Done():
				return nil
			case <-next.C:
			}
		case <-next.C:
		}
		// One that came during the wait is answered by the pass that follows.
		select {
		case <-l.kick:
		default:
		}
		next.Reset(l.repair(ctx, &last))
	}
}

// repair does one pass and returns when the next is due. An error is logged when it is a new one.
func (l *Links) repair(ctx context.Context, last *string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.want == nil {
		return resync
	}
	before := l.Writes()
	err := l.apply(ctx)
	l.keep(ctx, err)
	if n := l.Writes() - before; n > 0 {
		l.log.Info("repaired links and routes", "changes", n)
	}
	if err == nil {
		*last = ""
		return resync
	}
	if ctx.Err() == nil && err.Error() != *last {
		l.log.Error("links and routes are not as wanted", "error", err)
		*last = err.Error()
	}
	return retry
}

// listen signals events that concern us until the socket is closed. Lost ones (ENOBUFS) are events too.
func (l *Links) listen(ctx context.Context, socket *nl.NetlinkSocket) {
	for {
		messages, _, err := socket.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			if ctx.Err() == nil {
				l.log.Error("rtnetlink events ended, reading every 10 s", "error", err)
			}
			return
		}
		l.mu.Lock()
		w := l.watch
		l.mu.Unlock()
		if err == nil && !concerns(messages, w) {
			continue
		}
		l.wake()
	}
}

// concerns reports whether one of the messages is about the overlay's link, the underlay, or a route of ours.
func concerns(messages []syscall.NetlinkMessage, w watched) bool {
	return slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
		if len(m.Data) < 8 {
			return false
		}
		// struct ifinfomsg, ifaddrmsg and ndmsg have the index in bytes 4 to 7, struct rtmsg the protocol in byte 5.
		index := int(binary.NativeEndian.Uint32(m.Data[4:]))
		switch m.Header.Type {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			return m.Data[5] == ProtocolOverlay
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			return index == w.overlay
		case unix.RTM_NEWADDR:
			// While no interface has the node's address, this may be it.
			return index == w.overlay || index == w.underlay || w.underlay == 0
		case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_DELADDR:
			return index == w.overlay || index == w.underlay
		}
		return false
	})
}
