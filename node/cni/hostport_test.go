package cni

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
)

func TestParseHostPorts(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{``, "[]"},
		{`{}`, "[]"},
		{`{"portMappings":null}`, "[]"},
		{`{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}`, "[tcp *:8080->80]"},
		{`{"portMappings":[{"hostPort":8080,"containerPort":80},{"hostPort":8080,"containerPort":80,"protocol":"TCP"}]}`, "[tcp *:8080->80]"},
		// As containerd writes it: encoding/json takes names in any case.
		{`{"portMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"192.0.2.1"}]}`, "[tcp 192.0.2.1:8080->80]"},
		{`{"portMappings":[{"hostPort":53,"containerPort":5353,"protocol":"UDP","hostIP":"127.0.0.1"}]}`, "[udp 127.0.0.1:53->5353]"},
		{`{"portMappings":[{"hostPort":1,"containerPort":65535,"protocol":"sctp","hostIP":"fd00::1"}]}`, "[sctp [fd00::1]:1->65535]"},
		{`{"portMappings":[{"hostPort":1,"containerPort":2,"hostIP":"::ffff:192.0.2.1"}]}`, "[tcp 192.0.2.1:1->2]"},
		{`{"portMappings":[{"hostPort":1,"containerPort":2,"hostIP":"0.0.0.0"}]}`, "[tcp 0.0.0.0:1->2]"},
		{`{"portMappings":[{"hostPort":0,"containerPort":80,"protocol":"tcp"}]}`, "portMappings[0]: hostPort 0 is not between"},
		{`{"portMappings":[{"hostPort":80,"containerPort":65536,"protocol":"tcp"}]}`, "containerPort 65536 is not between"},
		{`{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]}`, `protocol "icmp" is none of`},
		{`{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"localhost"}]}`, `hostIP "localhost" is no IP`},
		{`{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"fe80::1%eth0"}]}`, "is no IP address"},
		{`{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"224.0.0.1"}]}`, "is no IP address"},
		{`{"portMappings":{}}`, "parse runtimeConfig"},
		{`{"portMappings":[{"hostPort":"80"}]}`, "parse runtimeConfig"},
	} {
		ports, err := parseHostPorts(json.RawMessage(test.in))
		got := fmt.Sprint(ports)
		if err != nil {
			got = err.Error()
		}
		if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
			t.Errorf("%s: %s, want %s", test.in, got, test.want)
		}
	}
}

// FuzzHostPorts: what is taken is what a Lease can hold and give back.
func FuzzHostPorts(f *testing.F) {
	f.Add(`{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"::1"}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		ports, err := parseHostPorts(json.RawMessage(in))
		if err != nil {
			return
		}
		data, err := json.Marshal(Lease{HostPorts: ports})
		var back Lease
		if err == nil {
			err = json.Unmarshal(data, &back)
		}
		if err != nil || fmt.Sprint(back.HostPorts) != fmt.Sprint(ports) {
			t.Errorf("%v, back %v, %v", ports, back.HostPorts, err)
		}
		for _, p := range ports {
			if p.HostPort == 0 || p.ContainerPort == 0 || p.HostIP.Is4In6() {
				t.Errorf("taken: %+v", p)
			}
		}
	})
}

func TestPodOf(t *testing.T) {
	for args, want := range map[string]string{
		"": "", "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c": "a/b",
		"K8S_POD_NAME=b": "", ";;=;K8S_POD_NAMESPACE": "",
	} {
		if got := podOf(args); got != want {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
}

func TestSetHostPorts(t *testing.T) {
	r := Request{"c", "eth0"}
	l := &Leases{Leases: []Lease{{Request: r}}}
	ports := []HostPort{{Protocol: "tcp", HostPort: 8080, ContainerPort: 80, HostIP: netip.MustParseAddr("127.0.0.1")}}
	for i, test := range []struct {
		r     Request
		pod   string
		ports []HostPort
		want  bool
	}{
		{r, "a/b", nil, false}, {r, "a/b", ports, true}, {r, "a/b", ports, false}, {r, "a/c", ports, true},
		{Request{"d", "eth0"}, "a/b", ports, false}, {r, "a/c", nil, true}, {r, "a/c", nil, false},
	} {
		if got := l.SetHostPorts(test.r, test.pod, test.ports); got != test.want {
			t.Errorf("step %d: changed %v", i, got)
		}
	}
	if l.Leases[0].Pod != "" || l.Leases[0].HostPorts != nil {
		t.Errorf("left behind: %+v", l.Leases[0])
	}
}

// TestDelWhateverPorts: a pod goes whatever the runtime says of its ports by now.
func TestDelWhateverPorts(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "boot_id"), "one")
	p := Plugin{Stdout: io.Discard, Stderr: io.Discard, Now: func() Uptime { return 0 }}
	stdin := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"hythe","type":"hythe-cni","configFile":%q,"dataDir":%q,"bootIDFile":%q,"runtimeConfig":{"portMappings":7}}`,
		filepath.Join(dir, "cni.json"), dir, filepath.Join(dir, "boot_id"))
	if err := p.Del(&skel.CmdArgs{ContainerID: "never-was", IfName: "eth0", StdinData: []byte(stdin)}); err != nil {
		t.Error(err)
	}
}
