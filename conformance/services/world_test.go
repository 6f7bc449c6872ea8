package services

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/api/v1alpha1"
	"hythe.dev/hythe/internal/kube/decode"
)

// otherClass is a loadBalancerClass whose addresses Hythe serves by --balancer-class. Those of all other Services in the
// cases are claimed, as its own controller would.
const otherClass = "other.example/lb"

// baseObjects are those of the lab itself, without the ServiceCIDR, which the API server makes itself.
func baseObjects() string {
	var b strings.Builder
	for i, zone := range []string{"east", "west"} {
		four, name := fmt.Sprintf("10.244.%d.0/24", i+1), fmt.Sprintf("node%d", i+1)
		address := onLAN[name]
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Node
metadata: {name: %s, labels: {kubernetes.io/hostname: %s, topology.kubernetes.io/zone: %s}}
spec: {podCIDR: %s, podCIDRs: ["%s", "%s"]}
status:
  addresses: [{type: InternalIP, address: "%s"}, {type: InternalIP, address: "%s"}]
  conditions: [{type: Ready, status: "True"}]
`, name, name, zone, four, four, Six(four), address, Six(address))
	}
	return b.String()
}

const serviceCIDR = `---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16, "fd00::a60:0/112"]}
`

// canaries are Services that are applied last, with an endpoint that is there at once: who serves them has read all else.
func canaries(step int) string {
	const text = `---
apiVersion: v1
kind: Service
metadata: {namespace: canary, name: step-%[1]d-IPv4}
spec: {type: ClusterIP, clusterIP: "10.96.255.%[1]d", clusterIPs: ["10.96.255.%[1]d"], ipFamilies: [IPv4], ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: canary, name: step-%[1]d-IPv4, labels: {kubernetes.io/service-name: step-%[1]d-IPv4}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: ["10.244.1.2"], nodeName: node1, conditions: {ready: true}}]
`
	four := fmt.Sprintf(text, step)
	return strings.ReplaceAll(four+Six(four), "-IPv", "-ipv")
}

// objectsOf puts the objects of a step of a file into a namespace of their own.
func objectsOf(t *testing.T, file File, step int) string {
	t.Helper()
	if step > len(file.Steps) { // the last one stays
		step = len(file.Steps)
	}
	var out bytes.Buffer
	for document := range strings.SplitSeq(file.Steps[step-1].Objects, "\n---\n") {
		o := unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &o.Object); err != nil {
			t.Fatalf("%s: %v\n%s", file.Name, err, document)
		}
		if len(o.Object) == 0 {
			continue
		}
		o.SetNamespace(strings.ReplaceAll(file.Name, "/", "-"))
		data, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "---\n%s", data)
	}
	return out.String()
}

// claims are what Hythe's controller would write for the addresses in the status of Services.
func claims(t *testing.T, objects string) string {
	t.Helper()
	decoded, problems := decode.Documents("objects", []byte(objects))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var out strings.Builder
	var seen []netip.Addr
	for _, o := range decoded {
		svc, ok := o.(*corev1.Service)
		if !ok || svc.Spec.Type != corev1.ServiceTypeLoadBalancer || svc.Spec.LoadBalancerClass != nil && *svc.Spec.LoadBalancerClass == otherClass {
			continue
		}
		for _, in := range svc.Status.LoadBalancer.Ingress {
			addr, err := netip.ParseAddr(in.IP)
			if err != nil || slices.Contains(seen, addr) || in.IPMode != nil && *in.IPMode != corev1.LoadBalancerIPModeVIP {
				continue
			}
			seen = append(seen, addr)
			fmt.Fprintf(&out, "---\napiVersion: %s\nkind: AddressClaim\nmetadata: {name: %q}\nspec: {address: %q, pool: lab, services: [{namespace: %s, name: %s}]}\n",
				v1alpha1.APIVersion, v1alpha1.ClaimName(addr), addr, svc.Namespace, svc.Name)
		}
	}
	return out.String()
}
