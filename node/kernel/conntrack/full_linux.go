package conntrack

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"

	"hythe.dev/hythe/internal/model"
)

// kernelFolder has the kernel's own count of entries, of the network namespace of whoever reads.
const kernelFolder = "/proc/sys/net/netfilter"

// nearlyFull is which part of the table may be in use before it is said, in percent.
const nearlyFull = 90

// A Usage is how much of the kernel's table is in use.
type Usage struct {
	Entries int `json:"entries"`
	Limit   int `json:"limit"`
	// Dropped is how many packets the kernel has dropped for want of room; it is read where the table is nearly full.
	Dropped uint64 `json:"dropped,omitempty"`
}

func (u Usage) nearlyFull() bool { return u.Limit > 0 && u.Entries*100 >= u.Limit*nearlyFull }

// ReadUsage reads the usage in the calling thread's network namespace.
func ReadUsage() (Usage, error) {
	u, err := readUsage(kernelFolder)
	if err == nil && u.nearlyFull() {
		u.Dropped = ReadLosses().Dropped
	}
	return u, err
}

// Losses are packets of new connections that conntrack dropped since the network namespace was made.
type Losses struct {
	Dropped      uint64 // there was no room, or no memory
	EarlyDropped uint64 // entries that had to make room, of connections that were not answered yet
	InsertFailed uint64 // another packet had made the same entry, or taken its port, at the same moment
}

// ReadLosses reads the losses in the calling thread's network namespace, all zero where the kernel does not tell.
func ReadLosses() Losses {
	c, err := dial(0)
	if err != nil {
		return Losses{}
	}
	defer c.Close()
	m, err := message(messageStats, netlink.Dump, false, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return Losses{}
	}
	replies, err := c.Execute(m)
	if err != nil {
		return Losses{}
	}
	var out Losses
	for _, r := range replies { // one for each CPU
		if len(r.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(r.Data[4:])
		if err != nil {
			continue
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			switch ad.Type() {
			case attrStatsInsertFailed:
				out.InsertFailed += uint64(ad.Uint32())
			case attrStatsDrop:
				out.Dropped += uint64(ad.Uint32())
			case attrStatsEarlyDrop:
				out.EarlyDropped += uint64(ad.Uint32())
			}
		}
	}
	return out
}

func readUsage(folder string) (Usage, error) {
	var u Usage
	for name, into := range map[string]*int{"nf_conntrack_count": &u.Entries, "nf_conntrack_max": &u.Limit} {
		b, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return Usage{}, fmt.Errorf("read usage of conntrack: %w", err)
		}
		if *into, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			return Usage{}, fmt.Errorf("read usage of conntrack: %w", err)
		}
	}
	return u, nil
}

// Problems says whether new connections are, or soon will be, dropped by node for want of room.
func Problems(node string, u Usage) []model.Problem {
	if !u.nearlyFull() {
		return nil
	}
	what := "new connections will be dropped when it is full"
	if u.Entries >= u.Limit {
		what = "the kernel drops new connections"
	}
	if u.Dropped > 0 {
		what += fmt.Sprintf(" (%d packets so far)", u.Dropped)
	}
	return []model.Problem{model.Problemf(model.ObjectRef{Kind: "Node", Name: node}, "ConntrackFull",
		"%d of %d connections are tracked on node %s: %s. Raise net.netfilter.nf_conntrack_max there, or find who opens them with: conntrack -L.",
		u.Entries, u.Limit, node, what)}
}
