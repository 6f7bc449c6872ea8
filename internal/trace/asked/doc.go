// Package asked has the questions of hythe trace and the answers to them: what a person asks (Question), what a process is
// asked under /inspect (AskVIP and so on), and what it answers, of which the Evidence of a trace consists. It does nothing.
package asked
