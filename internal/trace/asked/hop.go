package asked

import (
	"time"

	"hythe.dev/hythe/internal/model"
)

// A State says how a hop is.
type State string

const (
	// OK is a hop that carries the request on, and is as Build wants it.
	OK State = "ok"
	// Differs is a hop that is not as Build wants it, whether or not it carries the request.
	Differs State = "differs"
	// Broken is a hop at which the request ends.
	Broken State = "broken"
	// Unknown is a hop that could not be read.
	Unknown State = "unknown"
)

// A Hop is one step of a request's road.
type Hop struct {
	// Where is the machine and process that has it: "node1", "node1/envoy", "LAN".
	Where string `json:"where"`
	// Part is what it is: "processes", "name", "service", "claim", "owner", "arp", "frontend", "firewall", "listener",
	// "certificate", "host", "route", "cluster", "endpoints", "overlay", "pod".
	Part string `json:"part"`
	// Text is what was read back, in one line.
	Text  string `json:"text"`
	State State  `json:"state"`
	// Object is who decided it.
	Object model.ObjectRef `json:"object,omitzero"`
	// Since is when the object was last changed, or created if that is all that is known. Zero where it says neither.
	Since time.Time `json:"since,omitzero"`
	// Want is what Build wants in place of Text, empty if it is that.
	Want string `json:"want,omitempty"`
	// Remedy is what a person should do, empty for a hop that is OK.
	Remedy string `json:"remedy,omitempty"`
}
