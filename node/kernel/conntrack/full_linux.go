package conntrack

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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
}

// ReadUsage reads the usage in the calling thread's network namespace.
func ReadUsage() (Usage, error) { return readUsage(kernelFolder) }

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
	if u.Limit <= 0 || u.Entries*100 < u.Limit*nearlyFull {
		return nil
	}
	what := "new connections will be dropped when it is full"
	if u.Entries >= u.Limit {
		what = "the kernel drops new connections"
	}
	return []model.Problem{model.Problemf(model.ObjectRef{Kind: "Node", Name: node}, "ConntrackFull",
		"%d of %d connections are tracked on node %s: %s. Raise net.netfilter.nf_conntrack_max there, or find who opens them with: conntrack -L.",
		u.Entries, u.Limit, node, what)}
}
