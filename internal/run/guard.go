package run

import (
	"fmt"
	"runtime/debug"
)

// A PanicError is a panic that ended a piece of work, and not the process.
type PanicError struct {
	Value any
	Stack []byte
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.Value, e.Stack) }

// Guard calls f and returns its panic as a *PanicError. It is for work on one thing of many, where the state of before
// is good enough for the rest.
func Guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return f()
}
