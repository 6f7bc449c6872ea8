package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/charts"
)

// controllerNamespace is where the controller's Role counts.
const controllerNamespace = "hythe-system"

// roles are the ClusterRoles of the chart; each is bound to the user of that name.
func roles() []string { return []string{"hythe-controller", "hythe-gateway", "hythe-node"} }

// Kubeconfigs writes a file for each component ("controller", "gateway", "node") and for an administrator ("admin") into
// the Server's folder.
func (s Server) Kubeconfigs(a *Authority) error {
	users := map[string][]string{"admin": {"system:masters"}}
	for _, role := range roles() {
		users[role[len("hythe-"):]] = nil
	}
	for name, groups := range users {
		user := "hythe-" + name
		data, err := a.Kubeconfig(s.URL(), user, groups...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.Kubeconfig(name), data, 0o600); err != nil {
			return fmt.Errorf("write kubeconfig: %w", err)
		}
	}
	return nil
}

// Kubeconfig is the path of a file that Kubeconfigs wrote.
func (s Server) Kubeconfig(name string) string { return filepath.Join(s.Dir, name+".kubeconfig") }

// Install puts the definitions of Hythe's kinds, its roles and their bindings into the API, and tries until the API has
// them or ctx is done.
func Install(ctx context.Context, store *Store) error {
	var objects []any
	files, err := fs.Glob(charts.CRDs(), "hythe/crds/*.yaml")
	if err != nil {
		return fmt.Errorf("find definitions: %w", err)
	}
	for _, f := range files {
		data, err := charts.CRDs().ReadFile(f)
		if err != nil {
			return fmt.Errorf("read definitions: %w", err)
		}
		more, err := documents(data)
		if err != nil {
			return fmt.Errorf("read definitions: %w", err)
		}
		objects = append(objects, more...)
	}
	more, err := documents(charts.Roles())
	if err != nil {
		return fmt.Errorf("read roles: %w", err)
	}
	for _, o := range more {
		if o, ok := o.(map[string]any); ok && o["kind"] == "Role" {
			o["metadata"].(map[string]any)["namespace"] = controllerNamespace
		}
	}
	objects = slices.Concat(objects, more, bindings())
	err = store.Put(ctx, "install", objects)
	for err != nil {
		if ctx.Err() != nil {
			return errors.Join(errors.New("install Hythe's kinds and roles"), err, ctx.Err())
		}
		sleep(ctx, syncAgain/4)
		store.Again(ctx)
		err = store.Err()
	}
	return served(ctx, store.client)
}

// served waits until the API serves Hythe's kinds.
func served(ctx context.Context, c *Client) error {
	for _, kind := range []string{"AddressPool", "AddressClaim", "Report", "GatewayConfig"} {
		for {
			err := c.Do(ctx, "GET", Path("hythe.dev/v1alpha1", kind, "", ""), "", nil, nil)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("wait for the API to serve kind %s: %w", kind, err)
			}
			sleep(ctx, syncAgain/10)
		}
	}
	return nil
}

func bindings() []any {
	binding := func(kind, of, name string) map[string]any {
		const group = "rbac.authorization.k8s.io"
		return map[string]any{
			"apiVersion": group + "/v1", "kind": kind, "metadata": map[string]any{"name": name, "namespace": controllerNamespace},
			"roleRef":  map[string]any{"apiGroup": group, "kind": of, "name": name},
			"subjects": []any{map[string]any{"apiGroup": group, "kind": "User", "name": name}},
		}
	}
	out := []any{binding("RoleBinding", "Role", roles()[0])}
	for _, name := range roles() {
		out = append(out, binding("ClusterRoleBinding", "ClusterRole", name))
	}
	return out
}

// documents reads YAML documents.
func documents(data []byte) ([]any, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var out []any
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		var object map[string]any
		if err == nil {
			err = yaml.Unmarshal(document, &object)
		}
		if err != nil {
			return nil, err
		}
		if len(object) > 0 {
			out = append(out, object)
		}
	}
}
