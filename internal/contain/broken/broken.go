// Package broken makes things that panic when they are looked at, for tests of what one bad object may cost. They stand
// for faults that nobody foresaw, so they are put into objects, and the code under test knows nothing of them.
package broken

import "unsafe"

// Text returns a string that cannot be read: to compare, hash, parse or print it is a runtime error. It may be copied.
func Text() string {
	header := struct {
		data   *byte
		length int
	}{nil, 7}
	return *(*string)(unsafe.Pointer(&header))
}

// Slice returns a slice of one element that cannot be read.
func Slice[T any]() []T {
	header := struct {
		data          *T
		length, space int
	}{nil, 1, 1}
	return *(*[]T)(unsafe.Pointer(&header))
}
