// Package cluster says what the rig's cluster consists of: addresses, machines, certificates' names, command lines and
// configuration files. It is pure; package host makes it so.
package cluster
