// Package faults holds tests in which clients attack a real Envoy that Hythe has configured: requests that two servers read
// differently, paths that hide from which route they are, floods. A test of each kind is a table of bytes and answers.
//
// Which fault has which test, in all of the repository, is in faults.md.
package faults
