package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hythe.dev/hythe/internal/lab/topology"
)

const (
	gatewayService = "hythe-system/gateway"
	// refuseLimit is how fast a closed port must be refused.
	refuseLimit = 10 * time.Millisecond
)

// showVIP finds the claim and looks at the address from the router and from the client.
func (d *demo) showVIP(ctx context.Context) {
	if !d.check("AddressClaim for Service "+gatewayService, func() (string, error) { return d.findVIP(ctx) }) {
		return
	}
	d.failover = NewFailover(d.lab, d.vip)
	d.startCapture(ctx)
	client := d.lab.Namespace(topology.Client)
	d.check("router asks by ARP who has "+d.vip.String(), func() (string, error) {
		voices, err := whoHas(ctx, d.lab.Namespace(topology.Router), topology.RouterLANInterface, topology.RouterAddress(), d.vip, 500*time.Millisecond)
		if err != nil {
			return "", err
		}
		if len(voices) != 1 {
			return "", fmt.Errorf("%d answers, want one", len(voices))
		}
		owner, err := d.failover.only(voices)
		if err == nil && !strings.HasPrefix(owner, "node") {
			err = errors.New("the answer came from " + owner)
		}
		return fmt.Sprintf("%s alone answers, with its MAC %s", owner, voices[0].mac), err
	})
	d.check("interfaces of all nodes", func() (string, error) { return d.nowhere() })
	d.check("client pings "+d.vip.String(), func() (string, error) {
		var last time.Duration
		for i := range uint16(5) {
			took, err := ping(client, d.vip, i+1)
			if err != nil {
				return "", fmt.Errorf("ping %d of 5: %w", i+1, err)
			}
			last = took
		}
		return fmt.Sprintf("5 of 5 answered, the last in %.2f ms", float64(last.Microseconds())/1000), nil
	})
	closed := netip.AddrPortFrom(d.vip, 81)
	d.check(fmt.Sprintf("client connects to the closed port %s", closed), func() (string, error) {
		var all []time.Duration
		for range 5 {
			took, err := refusal(ctx, client, closed)
			if err != nil {
				return "", err
			}
			all = append(all, took)
		}
		slices.Sort(all)
		if all[2] > refuseLimit {
			return "", fmt.Errorf("refused only after %s", all[2])
		}
		return fmt.Sprintf("refused in %.2f ms (worst of 5: %.2f ms)", float64(all[2].Microseconds())/1000, float64(all[4].Microseconds())/1000), nil
	})
}

// findVIP reads the claim of the gateway's Service.
func (d *demo) findVIP(ctx context.Context) (string, error) {
	snapshot, err := d.snapshot(ctx)
	if err != nil {
		return "", err
	}
	for _, c := range snapshot.Claims {
		for _, s := range c.Spec.Services {
			if s.Namespace+"/"+s.Name == gatewayService {
				d.vip, err = netip.ParseAddr(c.Spec.Address)
				return fmt.Sprintf("%s from pool %s", c.Spec.Address, c.Spec.Pool), err
			}
		}
	}
	return "", errors.New("there is none")
}

// nowhere looks for the VIP on all interfaces of all nodes.
func (d *demo) nowhere() (string, error) {
	n := 0
	for _, node := range d.plan.Nodes {
		all, err := topology.Addresses(d.lab.Namespace(node.Name))
		if err != nil {
			return "", err
		}
		for iface, addrs := range all {
			n += len(addrs)
			if slices.Contains(addrs, d.vip) {
				return "", fmt.Errorf("%s on %s has %s", iface, node.Name, d.vip)
			}
		}
	}
	return fmt.Sprintf("none of their %d addresses is %s", n, d.vip), nil
}

// startCapture looks at the VIP's packets on the router until showCapture.
func (d *demo) startCapture(ctx context.Context) {
	c, err := newCapture(d.lab.Namespace(topology.Router), topology.RouterLANInterface, d.vip)
	if err != nil {
		d.result("packet capture on the router", "", 0, err)
		return
	}
	d.capture = c
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	c.end = func() error {
		cancel()
		return <-ended
	}
}

// showCapture ends the capture and counts.
func (d *demo) showCapture(context.Context) {
	if d.capture == nil {
		d.result("packet capture on the router", "", 0, errors.New("it did not run"))
		return
	}
	d.check("packet capture on the router, since the first question", func() (string, error) {
		if err := d.capture.end(); err != nil {
			return "", err
		}
		packets, twice := d.capture.result()
		if packets == 0 {
			return "", errors.New("no packet was seen at all")
		}
		if len(twice) > 0 {
			return "", fmt.Errorf("%d of %d packets were seen twice, the first: %s", len(twice), packets, twice[0])
		}
		return fmt.Sprintf("%d packets of %s, none twice", packets, d.vip), nil
	})
}

// showFailover lets the owner fail in each way once.
func (d *demo) showFailover(ctx context.Context) {
	if d.failover == nil {
		d.result("failover", "", 0, errors.New("there is no VIP"))
		return
	}
	for _, fault := range Faults() {
		d.check(string(fault), func() (string, error) {
			t, err := d.failover.Try(ctx, fault)
			if err != nil {
				return "", fmt.Errorf("%w (%s)", err, t)
			}
			return t.String() + fmt.Sprintf("; %s came back and the VIP stayed", t.Old), nil
		})
	}
}
