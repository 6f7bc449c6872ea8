// Package install does what Helm cannot do by itself when the chart is upgraded or uninstalled. The chart's hooks run it
// by "hythe chart".
//
//	upgrade ─────> Definitions ──> API server: CustomResourceDefinitions, which Helm leaves as they were
//	uninstall ───> Stop ─────────> no controller writes claims and status, so that hythe controller release can end them
//	               Gone ─────────> no pod of Hythe runs any more
//	               DaemonSetReady ─> each node was cleaned, but those that are not Ready
package install
