package writer

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hythe.dev/hythe/internal/model"
)

// TestFlapping lets things come and go each second for an hour: an Event is written once a minute for one that says
// the same, and about one object there are few, whatever they say. What lasts is told each half an hour, and another
// object is told of all the time.
func TestFlapping(t *testing.T) {
	service := func(name string) model.ObjectRef { return model.ObjectRef{Kind: "Service", Namespace: "n", Name: name} }
	for name, test := range map[string]struct {
		at          func(second int) (problems, news []model.Problem)
		least, most int // Events in an hour
	}{
		"a problem that comes and goes": {func(i int) ([]model.Problem, []model.Problem) {
			return []model.Problem{model.Problemf(service("a"), "AddressConflict", "a host has it")}[:i%2], nil
		}, 30, 61},
		"a problem that says something else each time": {func(i int) ([]model.Problem, []model.Problem) {
			return []model.Problem{model.Problemf(service("a"), "AddressConflict", "a host has it since %d s", i)}, nil
		}, 30, 71},
		"a VIP that moves to and fro": {func(i int) ([]model.Problem, []model.Problem) {
			return nil, []model.Problem{model.Problemf(service("a"), "AddressMoved", "it moved from n%d to n%d", i%2, (i+1)%2)}
		}, 30, 122},
		"a problem that lasts": {func(int) ([]model.Problem, []model.Problem) {
			return []model.Problem{model.Problemf(service("a"), "PoolExhausted", "none is free")}, nil
		}, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeServer{objects: map[string]any{}}
				w := f.writer(t)
				s := &model.Snapshot{}
				for i := range 3600 {
					problems, news := test.at(i)
					if i == 1800 {
						problems = append(problems, model.Problemf(service("b"), "InvalidRequest", "of another"))
					}
					if _, err := w.Set(t.Context(), s, Desired{Problems: problems, News: news}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				all := f.written()
				if n := strings.Count(all, "/events") - 1; n < test.least || n > test.most {
					t.Errorf("%d Events in an hour, want %d to %d", n, test.least, test.most)
				}
			})
		})
	}
}

// TestManyProblems has more to tell than may be said at once: all of it is said in time, and the error is short.
func TestManyProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeServer{objects: map[string]any{}}
		w := f.writer(t)
		var problems []model.Problem
		for i := range 200 {
			problems = append(problems, model.Problemf(model.ObjectRef{Kind: "Service", Namespace: "n", Name: fmt.Sprint(i)}, "PoolExhausted", "none is free"))
		}
		_, err := w.Set(t.Context(), &model.Snapshot{}, Desired{Problems: problems})
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v, want one line", err)
		}
		if n := strings.Count(f.written(), "/events"); n != 50 {
			t.Errorf("%d Events at once, want 50", n)
		}
		n := 0
		for range 60 {
			time.Sleep(time.Second)
			_, _ = w.Set(t.Context(), &model.Snapshot{}, Desired{Problems: problems})
			n += strings.Count(f.written(), "/events")
		}
		if n != 150 {
			t.Errorf("%d Events in a minute, want the other 150", n)
		}
	})
}

// TestEventAboutNode posts a Problem of a Node where kubectl describe looks for it.
func TestEventAboutNode(t *testing.T) {
	object, ok := eventObject(&model.Snapshot{}, model.ObjectRef{Kind: "Node", Name: "n1"})
	if !ok || object.Kind != "Node" || object.Name != "n1" || object.UID != "n1" || object.Namespace != "" {
		t.Errorf("the Event is about %+v", object)
	}
	f := &fakeServer{objects: map[string]any{}}
	p := model.Problemf(model.ObjectRef{Kind: "Node", Name: "n1"}, "NoPodCIDR", "it has no spec.podCIDRs")
	if _, err := f.writer(t).Set(t.Context(), &model.Snapshot{}, Desired{Problems: []model.Problem{p}}); err != nil {
		t.Fatal(err)
	}
	if got := f.written(); got != "POST /api/v1/namespaces/default/events" {
		t.Errorf("written %q", got)
	}
}
