package nft

import (
	"fmt"

	"github.com/mdlayher/netlink"
)

// Remove deletes the table, for a node that Hythe leaves. A table that a running process owns stays, and is an error;
// one that is not there is none. Connections that the table translated go on, as far as conntrack knows them.
func Remove(options ...Option) error {
	t := &Table{}
	for _, o := range options {
		o(t)
	}
	c, err := dial(t.netns)
	if err != nil {
		return err
	}
	defer c.Close()
	there, err := c.readTable()
	if err != nil {
		return err
	}
	if !there.exists {
		return nil
	}
	if there.owner != 0 {
		return fmt.Errorf("delete table inet %s: a running process owns it; end hythe node first", tableName)
	}
	if err := c.batch([]netlink.Message{deleteTable(tableName)}); err != nil {
		return fmt.Errorf("delete table inet %s: %w", tableName, err)
	}
	return nil
}
