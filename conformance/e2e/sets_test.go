package main

import (
	"strings"
	"testing"
)

func TestSets(t *testing.T) {
	rs, err := parseRules(setsText)
	if err != nil {
		t.Fatal(err)
	}
	for test, want := range map[string]string{
		"[sig-network] Services should serve a basic endpoint from pods [Conformance]":                                                  setConformance,
		"[sig-network] Services should work after the service has been recreated":                                                       setNetwork,
		"[sig-network] Services should work after restarting kube-proxy [Disruptive]":                                                   leftOut,
		"[sig-network] Networking Granular Checks: Services should function for pod-Service: sctp [Feature:SCTPConnectivity]":           leftOut,
		"[sig-network] LoadBalancers ExternalTrafficPolicy: Local [Feature:LoadBalancer] [Slow] should work from pods":                  setLoadBalancer,
		"[sig-network] LoadBalancers ExternalTrafficPolicy: Local [Feature:LoadBalancer] [Slow] should target all nodes with endpoints": leftOut,
		"[sig-apps] Job should run to completion [Conformance]":                                                                         "",
	} {
		if got := rs.set(test); got != want {
			t.Errorf("%s: set %q, want %q", test, got, want)
		}
	}
	for test, want := range map[string]bool{
		"[sig-network] A [Serial]": true,
		"[sig-network] Service CIDRs should create Services and serve on different Service CIDRs": true,
		"[sig-network] Services should work after the service has been recreated":                 false,
	} {
		if got := rs.alone(test); got != want {
			t.Errorf("%s: alone %t, want %t", test, got, want)
		}
	}
}

func TestParseRules(t *testing.T) {
	for text, want := range map[string]string{
		"elsewhere a":             `line 1: "elsewhere" is no set`,
		"# text\n\nnetwork (":     "line 3: error parsing regexp",
		"- a":                     "has a reason: false, want true",
		"network a\n\ta reason\n": "has a reason: true, want false",
		"\ta reason":              "line 1",
	} {
		if _, err := parseRules(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", text, err, want)
		}
	}
}

// TestCheck has a line that matches nothing, and one to which the lines before it leave nothing.
func TestCheck(t *testing.T) {
	rs, err := parseRules("conformance a\nloadbalancer a|b\nnetwork ab\nknown c\n\tis so\nalone a\n\tmeasures")
	if err != nil {
		t.Fatal(err)
	}
	err = rs.check([]string{"a", "b", "ab"})
	if err == nil || !strings.Contains(err.Error(), "network ab matches no test") || !strings.Contains(err.Error(), "known c matches no test") ||
		strings.Contains(err.Error(), "alone") || strings.Contains(err.Error(), "loadbalancer") {
		t.Errorf("check: %v, want errors about network and known only", err)
	}
	if got := rs.known("abc"); got != "is so" {
		t.Errorf("known %q, want %q", got, "is so")
	}
}
