package members

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// DefaultPort is the UDP port of heartbeats.
	DefaultPort = 7472
	// DefaultInterval is the time between two heartbeats to the same node.
	DefaultInterval = 150 * time.Millisecond
	// DefaultDeadAfter is the silence after which a node counts as dead: five heartbeats.
	DefaultDeadAfter = 5 * DefaultInterval
)

// A VIP is what a node says about one address.
type VIP struct {
	Addr netip.Addr
	// Generation grows by one each time that the address changes hands. For a VIP that the sender does not own
	// it is the highest one that it knows; 0 means that it knows of no owner ever.
	Generation uint64
	// Owned says that the sender owns the address in Generation.
	Owned bool
	// Healthy says that the sender's own probe finds a working backend on its node.
	Healthy bool
	// Draining says that the sender wants to give the address up although its backend works.
	Draining bool
	// Blocked says that the sender would not take the address now: a conflict, or no sign of life on its LAN.
	Blocked bool
}

// A Heartbeat is what a node says about itself.
type Heartbeat struct {
	Node     string
	Boot     uint64 // random, drawn when the process starts
	Sequence uint64 // counts the messages of a boot
	// Heard are the boots of the receiver that the sender has heard: the one of the running session and a newer
	// one that is not yet confirmed; 0 for none.
	Heard [2]uint64
	// Hold, if not 0, says that the sender is about to restart: for this long it counts as alive, and all that
	// it owns as owned, although nothing is heard of it.
	Hold time.Duration
	// Leaving says that the sender owns nothing any more and will not be back soon.
	Leaving bool
	// MACs are the hardware addresses that it announces with.
	MACs []net.HardwareAddr
	// VIPs is sorted by address.
	VIPs []VIP
}

// A Member is another node that is alive, with the last that it said.
type Member struct {
	Name string
	MACs []net.HardwareAddr
	VIPs []VIP
	// Held means that the node is restarting and asked to be waited for.
	Held bool
	// Age is the time since its last heartbeat.
	Age time.Duration
}

// VIP returns what the member said about an address.
func (m Member) VIP(a netip.Addr) (VIP, bool) {
	i, ok := slices.BinarySearchFunc(m.VIPs, a, func(v VIP, a netip.Addr) int { return v.Addr.Compare(a) })
	if !ok {
		return VIP{}, false
	}
	return m.VIPs[i], true
}

// Config sets the timers of a Table. Zero values mean the defaults.
type Config struct {
	Interval, DeadAfter time.Duration
}

func (c Config) withDefaults() Config {
	if c.Interval <= 0 {
		c.Interval = DefaultInterval
	}
	if c.DeadAfter <= 0 {
		c.DeadAfter = 5 * c.Interval
	}
	return c
}
