package contain_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"hythe.dev/hythe/internal/contain"
	"hythe.dev/hythe/internal/contain/broken"
)

type secret struct{ text string }

// deep panics some calls below Do.
func deep(n int, value any) {
	if n == 0 {
		panic(value)
	}
	deep(n-1, value)
}

// TestPanicTellsPlaceAndNoData checks what is kept of a panic.
func TestPanicTellsPlaceAndNoData(t *testing.T) {
	for name, value := range map[string]any{
		"text": "tls.key is hunter2", "error": errors.New("hunter2"), "value": secret{"hunter2"},
	} {
		p := contain.Do(func() { deep(2, value) })
		if p == nil {
			t.Fatalf("%s: nothing was caught", name)
		}
		if all := p.Error() + p.Stack; strings.Contains(all, "hunter2") {
			t.Errorf("%s: it tells what the value held: %s", name, all)
		}
		if !strings.HasPrefix(p.Place, "contain_test.deep (contain_test.go:") || strings.Contains(p.Error(), "\n") {
			t.Errorf("%s: %s", name, p)
		}
		if n := strings.Count(p.Stack, "\n") + 1; n != 4 { // deep three times, and this function's
			t.Errorf("%s: the stack has %d lines:\n%s", name, n, p.Stack)
		}
	}
}

// fault is the same one each time.
//
//go:noinline
func fault(i int) *contain.Panic {
	return contain.Do(func() { _ = make([]int, 3)[i] })
}

// TestSameFaultSameStack checks that a fault is known again, from whichever object or goroutine.
func TestSameFaultSameStack(t *testing.T) {
	one := fault(5)
	ended := make(chan *contain.Panic)
	go func() { ended <- fault(5) }()
	if other := <-ended; *other != *one || strings.SplitN(other.Stack, "\n", 2)[0] != one.Place {
		t.Errorf("%q and %q", one, other)
	}
	if want := "runtime error: index out of range [5] with length 3"; one.What != want {
		t.Errorf("it says %q, want %q", one.What, want)
	}
}

// TestCall checks that an error stays what it is, and that nothing is made of nothing.
func TestCall(t *testing.T) {
	no := errors.New("no")
	if err := contain.Call(func() error { return no }); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
	if err := contain.Call(func() error { return nil }); err != nil {
		t.Errorf("%v", err)
	}
	var p *contain.Panic
	if err := contain.Call(func() error { panic(no) }); !errors.As(err, &p) {
		t.Errorf("%v", err)
	}
}

// TestDeepStack checks that a deep stack is cut. (One that has no end at all is fatal in Go.)
func TestDeepStack(t *testing.T) {
	p := contain.Do(func() { deep(1000, 1) })
	if n := strings.Count(p.Stack, "\n") + 1; n > 40 || n < 10 {
		t.Errorf("%d lines", n)
	}
}

// TestBroken checks that what tests are built with is broken.
func TestBroken(t *testing.T) {
	text, equal := broken.Text(), false
	for name, f := range map[string]func(){
		"compare": func() { equal = text == "1234567" },
		"hash":    func() { _ = map[string]int{"a": 1}[text] },
		"parse":   func() { _, _ = strconv.Atoi(text) },
		"join":    func() { _ = strings.ToUpper("x" + text) },
		"element": func() { _ = broken.Slice[string]()[0] + "x" },
	} {
		if contain.Do(f) == nil {
			t.Errorf("%s: nothing was caught, %v", name, equal)
		}
	}
}
