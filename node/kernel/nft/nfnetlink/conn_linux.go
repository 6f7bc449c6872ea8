package nfnetlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// sendBuffer bounds a batch: 100,000 elements have some 10 MB.
	sendBuffer = 64 << 20
	// receiveBuffer bounds what may wait: dumps, and notifications while a repair runs.
	receiveBuffer = 16 << 20
	// replyTimeout is how long the kernel may take for a batch. A big one needs a second on a slow machine.
	replyTimeout = 30 * time.Second
)

// A Conn is a netlink socket to nftables. An owned table belongs to the socket, so it stays open.
type Conn struct {
	*netlink.Conn
}

// Dial opens a socket in the network namespace netns, or in that of the calling thread if it is 0.
func Dial(netns int) (Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return Conn{}, fmt.Errorf("open netlink socket: %w", err)
	}
	// Errors come without a copy of the failed message, which may be long. The buffers are best effort: what does
	// not fit is an error of the batch, and shown.
	_ = c.SetOption(netlink.CapAcknowledge, true)
	_ = c.SetWriteBuffer(sendBuffer)
	_ = c.SetReadBuffer(receiveBuffer)
	return Conn{c}, nil
}

// A BatchError is why the kernel refused a transaction. Nothing of it was done.
type BatchError struct {
	Failures []Failure // in the order of the messages, not empty
}

// A Failure is what the kernel says of one message, by its index; -1 is the transaction as a whole.
type Failure struct {
	Message int
	Err     error
}

// Error is the text of the first failure: the others may follow from it.
func (e *BatchError) Error() string { return e.Failures[0].Err.Error() }

// Unwrap is the first failure's error.
func (e *BatchError) Unwrap() error { return e.Failures[0].Err }

// Whole says that the kernel refused the transaction, and not some of its messages: to commit it failed.
func (e *BatchError) Whole() bool {
	return slices.ContainsFunc(e.Failures, func(f Failure) bool { return f.Message < 0 })
}

// Batch sends messages as one transaction. A *BatchError says which of them the kernel did not take: all of those, since it
// looks at each message also after one that failed.
func (c Conn) Batch(messages []netlink.Message) error {
	all := make([]netlink.Message, 0, len(messages)+2)
	edge := func(typ uint16) netlink.Message {
		return netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(typ), Flags: netlink.Request},
			Data:   generic(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES),
		}
	}
	all = append(all, edge(unix.NFNL_MSG_BATCH_BEGIN))
	all = append(all, messages...)
	all = append(all, edge(unix.NFNL_MSG_BATCH_END))
	// The kernel reports each failed message in any case; an acknowledgement of the last one says that all is done.
	all[len(messages)].Header.Flags |= netlink.Acknowledge
	sent, err := c.SendMessages(all)
	if err != nil {
		return fmt.Errorf("send batch: %w", err)
	}
	return c.outcome(sent[0].Header.Sequence, sent[len(messages)].Header.Sequence)
}

// outcome reads replies until the one to the message numbered last, or one to the batch as a whole, numbered first.
func (c Conn) outcome(first, last uint32) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("read outcome of batch: %w", err)
	}
	if err := c.SetReadDeadline(time.Now().Add(replyTimeout)); err != nil {
		return fmt.Errorf("read outcome of batch: %w", err)
	}
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	var failed []Failure
	buf := make([]byte, 64<<10)
	for {
		n := 0
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			n, _, readErr = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			return !errors.Is(readErr, unix.EAGAIN) && !errors.Is(readErr, unix.EINTR)
		})
		if err := errors.Join(err, readErr); err != nil {
			return fmt.Errorf("read outcome of batch: %w", err)
		}
		replies, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("read outcome of batch: %w", err)
		}
		for _, r := range replies {
			if r.Header.Type != unix.NLMSG_ERROR || len(r.Data) < 4 || r.Header.Seq-first > last-first {
				continue
			}
			errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(r.Data)))
			if errno != 0 {
				failed = append(failed, Failure{int(r.Header.Seq-first) - 1, errno})
			}
			switch {
			case r.Header.Seq != last && (r.Header.Seq != first || errno == 0):
			case len(failed) > 0:
				return &BatchError{failed}
			default:
				return nil
			}
		}
	}
}

// CanOwn says whether the kernel knows tables with an owner that they survive. A table of an agent before shows it;
// else it is tried, in a transaction that leaves nothing.
func (c Conn) CanOwn() bool {
	if c.tableFlags()&TablePersist != 0 {
		return true
	}
	const probe = "hythe-probe"
	return c.Batch([]netlink.Message{NewTable(probe, "", TableOwner|TablePersist), DeleteTable(probe)}) == nil
}

// tableFlags returns the flags of the table, none if there is no table.
func (c Conn) tableFlags() (flags uint32) {
	var a attrs
	a.text(unix.NFTA_TABLE_NAME, TableName)
	messages, err := c.Execute(message(unix.NFT_MSG_GETTABLE, 0, a))
	if err != nil {
		return 0
	}
	for _, m := range messages {
		each(m.Data[4:], func(typ uint16, data []byte) {
			if typ == unix.NFTA_TABLE_FLAGS && len(data) == 4 {
				flags = binary.BigEndian.Uint32(data)
			}
		})
	}
	return flags
}

// dump asks for all objects of a kind, again if they changed meanwhile.
func (c Conn) dump(typ uint16, a attrs) ([]netlink.Message, error) {
	for try := 0; ; try++ {
		messages, err := c.Execute(message(typ, netlink.Dump, a))
		if err == nil && !interrupted(messages) {
			return messages, nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) || try == 10 {
			return nil, errors.Join(err, errors.New("no consistent answer"))
		}
	}
}

func interrupted(messages []netlink.Message) bool {
	for _, m := range messages {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return true
		}
	}
	return false
}

// Listen opens a socket that hears what others than the socket numbered self change in nftables.
func Listen(netns int, self uint32) (Conn, error) {
	c, err := Dial(netns)
	if err != nil {
		return Conn{}, err
	}
	// Without the filter a big batch of our own would fill the buffer. The sender is the fourth word of the header
	// in the machine's byte order; a BPF load has the network's.
	own := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, self))
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: own, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 31},
		bpf.RetConstant{Val: 0},
	})
	if err == nil {
		err = c.SetBPF(filter)
	}
	if err == nil {
		err = c.JoinGroup(unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		_ = c.Close()
		return Conn{}, fmt.Errorf("listen to nftables: %w", err)
	}
	return c, nil
}

// Concerns says whether one of the notifications is about the table. All kinds of objects name their table in their
// first attribute.
func Concerns(messages []netlink.Message) bool {
	found := false
	for _, m := range messages {
		if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Header.Type&0xff == unix.NFT_MSG_NEWGEN || len(m.Data) < 4 {
			continue
		}
		each(m.Data[4:], func(typ uint16, data []byte) {
			found = found || typ == unix.NFTA_TABLE_NAME && zeroEnded(data) == TableName
		})
	}
	return found
}
