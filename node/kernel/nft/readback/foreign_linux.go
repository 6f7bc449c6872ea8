package readback

import (
	"slices"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
)

// A Dropper is a chain of somebody else that drops or refuses packets: by a rule, or by its policy.
type Dropper struct {
	Family string // as nft writes it: "ip", "inet"
	Table  string
	Chain  string
	// Hooks are where the kernel enters it: its own, or for one that others jump to those of all base chains of its table.
	Hooks []string
}

// Droppers lists them in the calling thread's network namespace, in the kernel's order. Which packets their rules match is
// not looked at; verdicts in maps are not seen.
func Droppers() ([]Dropper, error) {
	foreign, err := ForeignChains()
	if err != nil || len(foreign) == 0 {
		return nil, err
	}
	c, err := nfnetlink.Dial(0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	dropping, err := c.DroppingChains()
	if err != nil {
		return nil, err
	}
	var out []Dropper
	for _, f := range foreign {
		if !f.Drop && !dropping[nfnetlink.ChainName{Family: f.Family, Table: f.Table, Name: f.Name}] {
			continue
		}
		d := Dropper{Family: f.Family, Table: f.Table, Chain: f.Name}
		for _, base := range foreign {
			same := base.Family == f.Family && base.Table == f.Table
			if same && base.Hook != "" && (f.Hook == "" || base.Name == f.Name) && !slices.Contains(d.Hooks, base.Hook) {
				d.Hooks = append(d.Hooks, base.Hook)
			}
		}
		out = append(out, d)
	}
	return out, nil
}
