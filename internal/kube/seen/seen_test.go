package seen

import (
	"maps"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"hythe.dev/hythe/internal/model"
)

func at(second int) time.Time { return time.Date(2026, 5, 1, 12, 0, second, 0, time.UTC) }

func TestNext(t *testing.T) {
	snapshot := func(names ...string) *model.Snapshot {
		s := &model.Snapshot{}
		for _, name := range names {
			s.Ingresses = s.Ingresses.With(model.Key{Namespace: "shop", Name: name}, &networkingv1.Ingress{})
		}
		return s
	}
	explicit := snapshot("a", "b", "c")
	explicit.Ingresses.Get(model.Key{Namespace: "shop", Name: "c"}).CreationTimestamp = metav1.NewTime(at(99))
	stamped := snapshot("a", "b")
	stamped.Ingresses.Get(model.Key{Namespace: "shop", Name: "a"}).CreationTimestamp = metav1.NewTime(at(1))
	broken := snapshot("b")
	broken.Problems = []model.Problem{model.Problemf(model.ObjectRef{Kind: "File", Name: "a.yaml"}, "Unreadable", "no")}
	a, b := "Ingress.shop.a", "Ingress.shop.b"
	for _, tt := range []struct {
		name   string
		before Times
		last   *model.Snapshot
		s      *model.Snapshot
		now    time.Time
		want   Times
	}{
		{"the first", nil, nil, snapshot("a", "b"), at(1), Times{a: at(1), b: at(1)}},
		{"a newcomer", Times{a: at(1)}, snapshot("a"), snapshot("a", "b"), at(2), Times{a: at(1), b: at(2)}},
		{"what it has of us it keeps", Times{a: at(1)}, snapshot("a"), stamped, at(2), Times{a: at(1), b: at(2)}},
		{"what has a time of its own needs none", nil, nil, explicit, at(2), Times{a: at(2), b: at(2)}},
		{"gone", Times{a: at(1), b: at(2)}, snapshot("a", "b"), snapshot("b"), at(3), Times{b: at(2)}},
		{"gone while there was no controller", Times{a: at(1), b: at(2)}, nil, snapshot("b"), at(3), Times{b: at(2)}},
		{"a file cannot be read", Times{a: at(1), b: at(2)}, nil, broken, at(3), Times{a: at(1), b: at(2)}},
		{"nor later", Times{a: at(1), b: at(2)}, broken, broken, at(3), Times{a: at(1), b: at(2)}},
		{"a file cannot be read, and an object of another is gone", Times{a: at(1), b: at(2)}, snapshot("a", "b"), broken, at(3), Times{b: at(2)}},
		{"a clock that was set back", Times{a: at(50)}, snapshot("a"), snapshot("a", "b"), at(2), Times{a: at(50), b: at(50).Add(time.Microsecond)}},
		{"one second", Times{a: at(1)}, snapshot("a"), snapshot("a", "b"), at(1), Times{a: at(1), b: at(1).Add(time.Microsecond)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := maps.Clone(tt.before)
			if is := tt.before.Next(tt.last, tt.s, tt.now); !maps.Equal(is, tt.want) {
				t.Errorf("it is %v, want %v", is, tt.want)
			}
			if !maps.Equal(before, tt.before) {
				t.Error("it changed what it was given")
			}
		})
	}
}

func TestParse(t *testing.T) {
	want := Times{"Ingress.shop.a": at(1).Add(3 * time.Microsecond), "Node..n1": at(2)}
	data, err := yaml.Marshal(want.ConfigMap())
	if err != nil {
		t.Fatal(err)
	}
	if is, err := Parse(data); err != nil || !maps.Equal(is, want) {
		t.Errorf("%v, %v, want %v", is, err, want)
	}
	is, err := Parse([]byte("data: {Node..n1: '2026-05-01T12:00:02Z', Node..n2: yesterday}"))
	if err == nil || len(is) != 1 {
		t.Errorf("a bad time: %v, %v", is, err)
	}
	if _, err := Parse([]byte("data: [")); err == nil {
		t.Error("no YAML: no error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("data: {Node..n1: '2026-05-01T12:00:02Z', Node..n2: yesterday}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		is, _ := Parse(data)
		text, err := yaml.Marshal(is.ConfigMap())
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil || !maps.EqualFunc(is, again, time.Time.Equal) {
			t.Errorf("%v, then %v, %v", is, again, err)
		}
	})
}
