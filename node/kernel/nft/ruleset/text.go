package ruleset

import (
	"fmt"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
)

// ElementText names an element as nft does: "frontends4 10.96.0.10 . 6 . 80".
func ElementText(e nfnetlink.Element) string {
	for _, s := range Sets() {
		if s.Name == e.Set {
			return e.Set + " " + s.Key.Text(e.Key)
		}
	}
	return fmt.Sprintf("%s %x", e.Set, e.Key)
}

// ValueText is " : value" of a map's element.
func ValueText(name, value string) string {
	for _, s := range Sets() {
		if s.Name != name {
			continue
		}
		if s.Words != nil {
			return " : " + value
		}
		if s.Data != nil {
			return " : " + s.Data.Text(value)
		}
	}
	return ""
}
