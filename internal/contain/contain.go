// Package contain keeps a panic to the piece of work that it happened in: one object of many, one attempt of many. What
// is caught names the place in the code and no data, since the value of a panic may hold anything, also of a Secret.
package contain

import (
	"fmt"
	"path"
	"runtime"
	"strings"
)

// A Panic is a panic that ended a piece of work, and not the process.
type Panic struct {
	// What is the text of a runtime error; of any other value only its type.
	What string
	// Place is where it happened, "xds.secret (clusters.go:140)".
	Place string
	// Stack has a line for each call between Place and the work's begin, in the form of Place, the innermost first. The
	// same fault has the same Stack.
	Stack string
}

// Error implements error, on one line.
func (p *Panic) Error() string { return "panic at " + p.Place + ": " + p.What }

// Do calls f and returns its panic, or nil.
func Do(f func()) (caught *Panic) {
	defer func() {
		if value := recover(); value != nil {
			caught = newPanic(value)
		}
	}()
	f()
	return nil
}

// Call calls f and returns its error, or its panic as a *Panic.
func Call(f func() error) error {
	var err error
	if p := Do(func() { err = f() }); p != nil {
		return p
	}
	return err
}

// mostFrames bounds a Stack: an endless recursion panics, too.
const mostFrames = 32

func newPanic(value any) *Panic {
	p := &Panic{What: fmt.Sprintf("a value of type %T", value)}
	if fault, ok := value.(runtime.Error); ok {
		p.What = fault.Error()
	}
	pcs := make([]uintptr, mostFrames)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)]) // without Callers, newPanic, and Do's function
	var lines []string
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "internal/contain.Do") || !more && frame.Function == "" {
			break
		}
		if !strings.HasPrefix(frame.Function, "runtime.") { // the machinery of panics
			lines = append(lines, fmt.Sprintf("%s (%s:%d)", path.Base(frame.Function), path.Base(frame.File), frame.Line))
		}
		if !more {
			break
		}
	}
	if len(lines) == 0 {
		lines = []string{"an unknown place"}
	}
	p.Place, p.Stack = lines[0], strings.Join(lines, "\n")
	return p
}
