package readback

import (
	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
	"hythe.dev/hythe/node/kernel/nft/ruleset"
	"hythe.dev/hythe/node/proxy"
)

// Frontends lists what the kernel does for each frontend, in the calling thread's network namespace; nil where there
// is no table. It is what Build's State.Frontends should be, and reads all elements: for one frontend ask Lookup.
func Frontends() (map[proxy.Frontend]proxy.Backends, error) {
	c, err := nfnetlink.Dial(0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if exists, err := c.Exists(); !exists {
		return nil, err
	}
	all := nfnetlink.Contents{}
	for _, s := range ruleset.Sets() {
		if s.Dynamic {
			continue
		}
		if err := c.Elements(s.Set, all); err != nil {
			return nil, err
		}
	}
	return ruleset.Decode(all), nil
}
