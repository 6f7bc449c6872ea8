package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

// TestUpdateEqualsBuild changes the golden tests' Services and their endpoints at random: what Update says of each change, on
// top of the State before, is what Build makes of the Snapshot.
func TestUpdateEqualsBuild(t *testing.T) {
	t.Run("endpoints", func(t *testing.T) { testUpdate(t, 10, changeEndpoints) })
	t.Run("services", func(t *testing.T) { testUpdate(t, 15, changeServices) })
}

// A changer returns a Snapshot in which something changed, and History.NoteServices of it.
type changer func(*rand.Rand, *model.History, *model.Snapshot) *model.Snapshot

func testUpdate(t *testing.T, seeds uint64, changed changer) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	updates, builds := 0, 0
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "input.yaml" })
		settings := flags(t, string(archive.Comment))
		for seed := range seeds {
			r := rand.New(rand.NewPCG(seed, 1))
			var history model.History
			var builder proxy.Builder
			snapshot := history.Note(load(t, archive.Files[i].Data), nil, true)
			have, _ := builder.Build(snapshot, self, settings)
			for range 20 {
				before := have.String()
				snapshot = changed(r, &history, snapshot)
				want, wantProblems := proxy.Build(snapshot, self, settings)
				change, problems, ok := builder.Update(snapshot, self, settings)
				if !ok {
					have, _ = builder.Build(snapshot, self, settings)
					builds++
					continue
				}
				updates++
				have = have.Own()
				change.Apply(have)
				if !reflect.DeepEqual(have, want) {
					t.Fatalf("%s, seed %d: of\n%s\nan update made\n%s\nwant\n%s", file, seed, before, have, want)
				}
				if !slices.Equal(problems, wantProblems) {
					t.Fatalf("%s, seed %d: problems %v, want %v", file, seed, problems, wantProblems)
				}
			}
		}
	}
	t.Logf("%d updates, %d builds", updates, builds)
	if updates < builds {
		t.Errorf("of %d changes only %d were updates", updates+builds, updates)
	}
}

// changeEndpoints returns a Snapshot in which endpoints of some Services changed.
func changeEndpoints(r *rand.Rand, h *model.History, s *model.Snapshot) *model.Snapshot {
	out := *s
	out.Endpoints = s.Endpoints
	keys := out.Endpoints.SortedKeys()
	var touched []model.Key
	for range 1 + r.IntN(3) {
		if len(keys) == 0 {
			break
		}
		key := keys[r.IntN(len(keys))]
		next := &model.ServiceEndpoints{}
		for _, p := range out.Endpoints.Get(key).Ports {
			p.Endpoints = slices.Clone(p.Endpoints)
			if n := len(p.Endpoints); n > 0 {
				switch e := &p.Endpoints[r.IntN(n)]; r.IntN(6) {
				case 0:
					e.Ready = !e.Ready
				case 1:
					e.Serving, e.Terminating, e.Ready = true, true, false
				case 2:
					p.Endpoints = slices.DeleteFunc(p.Endpoints, func(o model.Endpoint) bool { return o == *e })
				case 3:
					*e = p.Endpoints[0]
				case 4:
					e.Node = []string{self, "n2"}[r.IntN(2)]
				}
			}
			slices.SortStableFunc(p.Endpoints, model.Endpoint.Compare)
			p.Endpoints = slices.CompactFunc(p.Endpoints, func(a, b model.Endpoint) bool { return a.AddrPort == b.AddrPort })
			next.Ports = append(next.Ports, p)
		}
		out.Endpoints = out.Endpoints.With(key, next)
		touched = append(touched, key)
	}
	return h.Note(&out, touched, false)
}

// changeServices changes, adds and deletes Services too: most of them by themselves, some so that they come into the way of
// others.
func changeServices(r *rand.Rand, h *model.History, s *model.Snapshot) *model.Snapshot {
	if r.IntN(4) == 0 {
		return changeEndpoints(r, h, s)
	}
	out := *s
	out.Services = s.Services
	keys := append(s.Services.SortedKeys(), model.Key{Namespace: "default", Name: "new"}, model.Key{Namespace: "a", Name: "first"})
	var touched []model.Key
	for range 1 + r.IntN(2) {
		key := keys[r.IntN(len(keys))]
		touched = append(touched, key)
		if r.IntN(4) == 0 {
			out.Services = out.Services.Without(key)
			continue
		}
		svc := out.Services.Get(key)
		if svc == nil {
			svc = &corev1.Service{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Unix(int64(r.IntN(3))*1e9, 0)}}
			if like := s.Services.Get(keys[r.IntN(len(keys))]); like != nil && r.IntN(2) == 0 {
				svc = like
			}
		}
		svc = svc.DeepCopy()
		svc.Namespace, svc.Name = key.Namespace, key.Name
		for range 1 + r.IntN(2) {
			changeService(r, svc)
		}
		out.Services = out.Services.With(key, svc)
	}
	return h.NoteServices(&out, nil, touched, false)
}

// changeService changes one thing of a Service.
func changeService(r *rand.Rand, svc *corev1.Service) {
	spec := &svc.Spec
	switch r.IntN(10) {
	case 0, 1:
		spec.ClusterIPs = []string{fmt.Sprintf("10.96.%d.%d", r.IntN(2), r.IntN(20))}
		if r.IntN(3) == 0 {
			spec.ClusterIPs = append(spec.ClusterIPs, fmt.Sprintf("fd00:96::%d", r.IntN(9)))
		}
		spec.ClusterIP = spec.ClusterIPs[0]
	case 2, 3:
		p := corev1.ServicePort{Name: "http", Port: int32(80 + r.IntN(3)), Protocol: "TCP"}
		if r.IntN(2) == 0 {
			p.NodePort = int32(30080 + r.IntN(5))
		}
		spec.Ports = append(spec.Ports[:min(len(spec.Ports), r.IntN(2))], p)
	case 4:
		spec.Type = []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer}[r.IntN(3)]
	case 5:
		spec.ExternalTrafficPolicy = []corev1.ServiceExternalTrafficPolicy{"Local", "Cluster"}[r.IntN(2)]
	case 6:
		spec.SessionAffinity = []corev1.ServiceAffinity{"ClientIP", "None"}[r.IntN(2)]
	case 7:
		svc.Labels = map[string]string{[]string{"service.kubernetes.io/service-proxy-name", "app"}[r.IntN(2)]: "x"}
	case 8:
		svc.CreationTimestamp = metav1.Unix(int64(r.IntN(3))*1e9, 0)
	case 9:
		switch addr := fmt.Sprint("203.0.113.", 10+r.IntN(4)); r.IntN(4) {
		case 0:
			spec.ExternalIPs = []string{addr}
		case 1:
			svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: addr}}
		case 2:
			spec.ClusterIPs, spec.ClusterIP = []string{addr}, addr
		default:
			spec.ExternalIPs, svc.Status = nil, corev1.ServiceStatus{}
		}
	}
}

// TestUpdateKnowsItsLimits changes what more depends on than some frontends: only Build may do that.
func TestUpdateKnowsItsLimits(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/clusterip.txtar")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "input.yaml" })
	for name, change := range map[string]func(*model.History, *model.Snapshot, *proxy.Settings) *model.Snapshot{
		"something else": func(h *model.History, s *model.Snapshot, _ *proxy.Settings) *model.Snapshot {
			return h.Note(s, nil, true)
		},
		"other history": func(_ *model.History, s *model.Snapshot, _ *proxy.Settings) *model.Snapshot {
			return new(model.History).Note(s, nil, false)
		},
		"settings": func(_ *model.History, s *model.Snapshot, o *proxy.Settings) *model.Snapshot {
			o.Overlay = "x"
			return s
		},
	} {
		var history model.History
		var builder proxy.Builder
		settings := proxy.DefaultSettings()
		s := history.Note(load(t, archive.Files[i].Data), nil, true)
		if _, _, ok := builder.Update(s, self, settings); ok {
			t.Error("an update before the first Build")
		}
		builder.Build(s, self, settings)
		if _, _, ok := builder.Update(s, self, settings); !ok {
			t.Error("no change is no update")
		}
		if s = change(&history, s, &settings); s == nil {
			t.Fatal(name)
		}
		if _, _, ok := builder.Update(s, self, settings); ok {
			t.Errorf("%s: an update", name)
		}
		builder.Build(s, self, settings)
		builder.Forget()
		if _, _, ok := builder.Update(s, self, settings); ok {
			t.Errorf("%s: an update of what was forgotten", name)
		}
	}
}
