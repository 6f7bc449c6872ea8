package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"hythe.dev/hythe/internal/lab"
	"hythe.dev/hythe/internal/lab/echo"
	"hythe.dev/hythe/internal/lab/topology"
	"hythe.dev/hythe/internal/model"
)

// showCluster asks Services and pods from nodes and pods.
func (d *demo) showCluster(ctx context.Context) {
	snapshot, err := d.snapshot(ctx)
	if err != nil {
		d.result("read the cluster's state", "", 0, err)
		return
	}
	st, err := d.client.Status(ctx)
	if err != nil {
		d.result("read the lab's status", "", 0, err)
		return
	}
	d.showNodePort(ctx, snapshot)
	d.showClusterIP(ctx, snapshot, st)
	d.showPods(ctx, st)
}

func (d *demo) showNodePort(ctx context.Context, snapshot *model.Snapshot) {
	cart := snapshot.Services.Get(model.Key{Namespace: "shop", Name: "cart"})
	if cart == nil || len(cart.Spec.Ports) == 0 {
		d.result("NodePort of Service shop/cart", "", 0, errors.New("there is none"))
		return
	}
	port := uint16(cart.Spec.Ports[0].NodePort)
	for _, n := range d.plan.Nodes {
		to := netip.AddrPortFrom(n.Address, port)
		d.check(fmt.Sprintf("client asks NodePort %s on %s", to, n.Name), func() (string, error) {
			a, err := getPlain(ctx, d.lab.Namespace(topology.Client), to)
			if err != nil {
				return "", err
			}
			return "200 from " + a.who(), nil
		})
	}
}

// podOn returns a ready pod of the owner on a node, of another than the first pod with any.
func podOn(st lab.Status, owner, node string) *lab.PodStatus {
	for i, p := range st.Pods {
		if p.Ready && !p.Terminating && (owner == "" || p.Owner == owner) && (node == "" || p.Node == node) {
			return &st.Pods[i]
		}
	}
	return nil
}

func (d *demo) showClusterIP(ctx context.Context, snapshot *model.Snapshot, st lab.Status) {
	web := snapshot.Services.Get(model.Key{Namespace: "shop", Name: "web"})
	if web == nil {
		d.result("ClusterIP of Service shop/web", "", 0, errors.New("there is no such Service"))
		return
	}
	ip, err := netip.ParseAddr(web.Spec.ClusterIP)
	if err != nil {
		d.result("ClusterIP of Service shop/web", "", 0, err)
		return
	}
	to := netip.AddrPortFrom(ip, uint16(web.Spec.Ports[0].Port))
	for _, n := range d.plan.Nodes {
		d.check(fmt.Sprintf("a pod on %s asks ClusterIP %s", n.Name, to), func() (string, error) {
			p := podOn(st, "web", n.Name)
			if p == nil {
				return "", errors.New("no pod is there")
			}
			a, err := getPlain(ctx, p.Netns, to)
			if err != nil {
				return "", err
			}
			return "200 from " + a.who(), nil
		})
	}
}

func (d *demo) showPods(ctx context.Context, st lab.Status) {
	d.check("a pod on node1 asks a pod on node2", func() (string, error) {
		from, to := podOn(st, "web", "node1"), podOn(st, "web", "node2")
		if from == nil || to == nil {
			return "", errors.New("no pods are there")
		}
		a, err := getPlain(ctx, from.Netns, podPort(to))
		if err != nil {
			return "", err
		}
		remote, err := netip.ParseAddrPort(a.echo.Remote)
		if err != nil || remote.Addr().String() != from.Address {
			return "", fmt.Errorf("it saw %s as the source, want %s", a.echo.Remote, from.Address)
		}
		return fmt.Sprintf("it saw the pod's own address %s", remote.Addr()), nil
	})
	for _, n := range d.plan.Nodes {
		d.check(n.Name+" asks its own pod", func() (string, error) {
			p := podOn(st, "web", n.Name)
			if p == nil {
				return "", errors.New("no pod is there")
			}
			a, err := getPlain(ctx, d.lab.Namespace(n.Name), podPort(p))
			if err != nil {
				return "", err
			}
			return "200 from " + a.who(), nil
		})
	}
	d.check("a container asks another of its pod on localhost", func() (string, error) {
		p := podOn(st, "cart", "")
		if p == nil {
			return "", errors.New("no pod is there")
		}
		return d.localhost(ctx, p)
	})
}

func podPort(p *lab.PodStatus) netip.AddrPort {
	addr, _ := netip.ParseAddr(p.Address)
	return netip.AddrPortFrom(addr, 8080)
}

// localhost lets the first container of a pod fetch from the second one.
func (d *demo) localhost(ctx context.Context, p *lab.PodStatus) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := topology.Dial(ctx, d.lab.Namespace(p.Node), "tcp", podPort(p).String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /?fetch=http://localhost:9090/ HTTP/1.0\r\nHost: cart\r\n\r\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return "", err
	}
	head, body, _ := strings.Cut(string(text), "\r\n\r\n")
	var a echo.Answer
	if err := json.Unmarshal([]byte(body), &a); err != nil || !strings.Contains(head, fmt.Sprint(http.StatusOK)) {
		return "", fmt.Errorf("answer %.200q", text)
	}
	if a.Pod != p.Name || a.Container != "stock" {
		return "", fmt.Errorf("answered by container %s of %s", a.Container, a.Pod)
	}
	return fmt.Sprintf("container %s of the same pod %s", a.Container, a.Pod), nil
}
