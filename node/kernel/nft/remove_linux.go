package nft

import (
	"fmt"

	"github.com/mdlayher/netlink"

	"hythe.dev/hythe/node/kernel/nft/nfnetlink"
)

// Remove deletes the table, for a node that Hythe leaves. A table that a running process owns stays, and is an error;
// one that is not there is none. Connections that the table translated go on, as far as conntrack knows them.
func Remove(options ...Option) error {
	t := &Table{}
	for _, o := range options {
		o(t)
	}
	c, err := nfnetlink.Dial(t.netns)
	if err != nil {
		return err
	}
	defer c.Close()
	there, err := c.Table()
	if err != nil {
		return err
	}
	t.conn = c
	if t.metrics, err = newMetrics(nil); err != nil {
		return fmt.Errorf("register metrics of the datapath: %w", err)
	}
	if err := t.endInterim(); err != nil {
		return err
	}
	if !there.Exists {
		return nil
	}
	if there.Owner != 0 {
		return fmt.Errorf("delete table inet %s: a running process owns it; end hythe node first", nfnetlink.TableName)
	}
	if err := c.Batch([]netlink.Message{nfnetlink.DeleteTable(nfnetlink.TableName)}); err != nil {
		return fmt.Errorf("delete table inet %s: %w", nfnetlink.TableName, err)
	}
	return nil
}
