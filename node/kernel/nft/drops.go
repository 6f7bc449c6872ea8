package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// The reasons for which the table refuses or drops a packet. Each has a counter of that name in the table.
const (
	// NoEndpoint: the Service has no endpoint that may be used. Refused.
	NoEndpoint = "no-endpoint"
	// NoLocalEndpoint: externalTrafficPolicy or internalTrafficPolicy is Local, and this node has no endpoint while
	// others have. Dropped.
	NoLocalEndpoint = "no-local-endpoint"
	// ClosedPort: the address is a Service's, and the port is none of the Service's. Refused.
	ClosedPort = "closed-port"
	// SourceRange: the source is in none of spec.loadBalancerSourceRanges. Dropped.
	SourceRange = "source-range"
	// Spoofed: a pod of this node sent it from an address that is not the pod's. Dropped.
	Spoofed = "spoofed"
	// Invalid: conntrack found it out of its connection's window, or of no connection. Dropped: translated back by
	// nobody, it would end a living connection of its receiver.
	Invalid = "invalid"
)

// Reasons returns all reasons, sorted.
func Reasons() []string {
	return []string{ClosedPort, Invalid, NoEndpoint, NoLocalEndpoint, SourceRange, Spoofed}
}

// A Drop is how many packets the table refused or dropped for one reason since the table was written: changes of
// Services keep the numbers, another version of the skeleton begins at zero.
type Drop struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// ReadDrops reads the counters in the calling thread's network namespace: one Drop for each of Reasons, sorted; none
// where there is no table.
func ReadDrops() ([]Drop, error) { return readDrops(0) }

func readDrops(netns int) ([]Drop, error) {
	c, err := dial(netns)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var a attrs
	a.text(attrObjTable, tableName)
	messages, err := c.dump(unix.NFT_MSG_GETOBJ, a)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read counters of table %s: %w", tableName, err)
	}
	var out []Drop
	for _, m := range messages {
		if d, ok := parseDrop(m); ok {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Drop) int { return strings.Compare(a.Reason, b.Reason) })
	return out, nil
}

// parseDrop reads a counter of ours.
func parseDrop(m netlink.Message) (Drop, bool) {
	if len(m.Data) < 4 {
		return Drop{}, false
	}
	var d Drop
	table := ""
	each(m.Data[4:], func(typ uint16, data []byte) {
		switch typ {
		case attrObjTable:
			table = zeroEnded(data)
		case attrObjName:
			d.Reason = zeroEnded(data)
		case attrObjData:
			each(data, func(typ uint16, data []byte) {
				switch {
				case len(data) != 8:
				case typ == unix.NFTA_COUNTER_PACKETS:
					d.Packets = binary.BigEndian.Uint64(data)
				case typ == unix.NFTA_COUNTER_BYTES:
					d.Bytes = binary.BigEndian.Uint64(data)
				}
			})
		}
	})
	return d, table == tableName && slices.Contains(Reasons(), d.Reason)
}

// newCounter makes the counter of a reason.
func newCounter(reason string) netlink.Message {
	var a attrs
	a.text(attrObjTable, tableName)
	a.text(attrObjName, reason)
	a.be32(attrObjType, unix.NFT_OBJECT_COUNTER)
	a.nest(attrObjData, func() {})
	return message(unix.NFT_MSG_NEWOBJ, netlink.Create, a)
}

// count adds the packet to the counter of a reason.
func count(reason string) [][]byte {
	return marshal(&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: reason})
}

// dropCounters are the counters as Prometheus reads them.
type dropCounters struct {
	netns          int
	packets, bytes *prometheus.Desc
}

func newDropCounters(netns int) dropCounters {
	describe := func(what string) *prometheus.Desc {
		return prometheus.NewDesc("hythe_node_dropped_"+what+"_total",
			"What the Service datapath dropped or refused ("+what+"), by reason. A new version of the rules begins at zero.",
			[]string{"reason"}, nil)
	}
	return dropCounters{netns, describe("packets"), describe("bytes")}
}

// Describe implements prometheus.Collector.
func (d dropCounters) Describe(out chan<- *prometheus.Desc) {
	out <- d.packets
	out <- d.bytes
}

// Collect implements prometheus.Collector. A kernel that does not answer leaves no numbers.
func (d dropCounters) Collect(out chan<- prometheus.Metric) {
	drops, err := readDrops(d.netns)
	if err != nil {
		out <- prometheus.NewInvalidMetric(d.packets, err)
		return
	}
	for _, drop := range drops {
		out <- prometheus.MustNewConstMetric(d.packets, prometheus.CounterValue, float64(drop.Packets), drop.Reason)
		out <- prometheus.MustNewConstMetric(d.bytes, prometheus.CounterValue, float64(drop.Bytes), drop.Reason)
	}
}
