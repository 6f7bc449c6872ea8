package show

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// An Item is one object with what all processes say of it.
type Item interface {
	// place is the namespace, empty if it has none, and the name that a person would ask for.
	place() (namespace, name string)
	// cells are those of all columns of its kind.
	cells(now time.Time) []Cell
}

// items are the elements of a list as Items.
func items[T Item](in []T) []Item {
	out := make([]Item, len(in))
	for i := range in {
		out[i] = in[i]
	}
	return out
}

// A Kind is what hythe get can show.
type Kind struct {
	// Name is the plural in lower case.
	Name    string
	Aliases []string
	// Short says what is shown, in a few words.
	Short string

	columns []Column
}

// Kinds are all kinds, in the order of a request's road.
func Kinds() []Kind {
	return []Kind{
		{"vips", []string{"vip"}, "addresses that nodes announce, and who owns each",
			columns("VIP POOL SERVICES OWNER SINCE GENERATION ANNOUNCE HEALTHY CONFLICT AGE +NODES")},
		{"services", []string{"service", "svc"}, "Services in the datapath of each node, read back from the kernel",
			columns("NAMESPACE NAME TYPE ADDRESS PORTS ENDPOINTS VIP NODES AGE +NODE_PORTS +DIFFERENCES")},
		{"hosts", []string{"host"}, "hosts that Envoy serves",
			columns("HOST CERTIFICATE EXPIRES REDIRECT ROUTES INGRESSES ENVOY AGE +DETAILS")},
		{"routes", []string{"route"}, "paths of hosts, in the order in which Envoy tries them",
			columns("HOST PATH TYPE BACKEND READY TLS INGRESS ENVOY AGE +GATEWAYS +DETAILS")},
		{"certificates", []string{"certificate", "cert", "certs"}, "certificates that Envoy holds",
			columns("NAME HOSTS EXPIRES ISSUER ENVOY PROBLEMS AGE +SUBJECT +DNS_NAMES +SHA256 +DETAILS")},
		{"nodes", []string{"node"}, "nodes, their processes, and whether they hear each other",
			columns("NAME STATUS ADDRESS POD_CIDR PROCESSES HEARD VIPS UP +VERSION +SOURCE +SNAPSHOT +POD_MTU +KERNEL")},
		{"problems", []string{"problem"}, "what Hythe was asked for and did not do, and what would help",
			columns("OBJECT REASON SAID_BY MESSAGE")},
		{"drops", []string{"drop"}, "packets that the datapath dropped or refused, by reason",
			columns("NODE REASON PACKETS BYTES +MEANING")},
	}
}

// KindOf finds a kind by its name or an alias.
func KindOf(name string) (Kind, bool) {
	name = strings.ToLower(name)
	for _, k := range Kinds() {
		if k.Name == name || slices.Contains(k.Aliases, name) {
			return k, true
		}
	}
	return Kind{}, false
}

// A Filter chooses Items. Its zero value chooses all.
type Filter struct {
	Namespace, Name string
}

// Select returns the items that f chooses. A name may be written as "namespace/name".
func (f Filter) Select(list []Item) []Item {
	return slices.DeleteFunc(slices.Clone(list), func(i Item) bool {
		namespace, name := i.place()
		if f.Namespace != "" {
			if in, ok := i.(interface{ inNamespace(string) bool }); ok && !in.inNamespace(f.Namespace) || !ok && namespace != f.Namespace {
				return true
			}
		}
		return f.Name != "" && !strings.EqualFold(f.Name, name) && f.Name != namespace+"/"+name
	})
}

// Outputs are the forms that Write knows.
func Outputs() []string { return []string{"wide", "json", "yaml", "name"} }

// Options are how to write.
type Options struct {
	// Output is one of Outputs, or empty for a table.
	Output string
	// Colour marks what is not as it should be, for terminals.
	Colour bool
	// Headless leaves the heads of columns out.
	Headless bool
	// Now is what ages are counted to.
	Now time.Time
	// Silent are the processes that did not answer: programs have to know that something is missing.
	Silent []string
}

// Write prints items of a kind.
func (k Kind) Write(w io.Writer, list []Item, o Options) error {
	switch o.Output {
	case "", "wide":
		rows := make([][]Cell, len(list))
		for i, item := range list {
			rows[i] = item.cells(o.Now)
		}
		return writeTable(w, k.columns, rows, func(i int) bool { return o.Output == "wide" || !k.columns[i].Wide }, !o.Headless, o.Colour)
	case "name":
		for _, item := range list {
			namespace, name := item.place()
			if namespace != "" && k.Name != "routes" {
				name = namespace + "/" + name
			}
			if _, err := fmt.Fprintln(w, name); err != nil {
				return err
			}
		}
		return nil
	case "json", "yaml":
		return writeData(w, list, o)
	}
	return fmt.Errorf("unknown output %q: use %s", o.Output, strings.Join(Outputs(), ", "))
}

func writeData(w io.Writer, list []Item, o Options) error {
	if list == nil {
		list = []Item{}
	}
	data, err := json.MarshalIndent(struct {
		Items  []Item   `json:"items"`
		Silent []string `json:"silent,omitempty"`
	}{list, o.Silent}, "", "  ")
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	data = append(data, '\n')
	if o.Output == "yaml" {
		if data, err = yaml.JSONToYAML(data); err != nil {
			return fmt.Errorf("write YAML: %w", err)
		}
	}
	_, err = w.Write(data)
	return err
}
