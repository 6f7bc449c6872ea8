package lb

import (
	"net/netip"
	"testing"

	"hythe.dev/hythe/lb/members"
)

var vip = netip.MustParseAddr("203.0.113.1")

// byRank returns three node names, the preferred one for vip first.
func byRank() (first, second, third string) {
	names := []string{"n1", "n2", "n3"}
	for i := range names {
		for j := range i {
			if Rank(vip, names[i]) < Rank(vip, names[j]) {
				names[i], names[j] = names[j], names[i]
			}
		}
	}
	return names[0], names[1], names[2]
}

func TestElect(t *testing.T) {
	first, second, _ := byRank()
	able := Own{Healthy: true}
	says := func(name string, v members.VIP) members.Member {
		v.Addr = vip
		return members.Member{Name: name, VIPs: []members.VIP{v}}
	}
	held := func(m members.Member) members.Member { m.Held = true; return m }
	owner := members.VIP{Owned: true, Healthy: true, Generation: 4}
	for name, c := range map[string]struct {
		self       string
		own        Own
		members    []members.Member
		noCarrier  bool
		noEvidence bool
		listening  bool
		late       bool
		unclaimed  bool
		want       Action
		generation uint64
		reason     string
	}{
		"nobody ever owned it":               {self: first, own: able, want: Take, generation: 1, reason: ReasonFirst},
		"another is preferred":               {self: second, own: able, members: []members.Member{says(first, members.VIP{Healthy: true})}},
		"the preferred one is not healthy":   {self: second, own: able, members: []members.Member{says(first, members.VIP{Generation: 6})}, want: Take, generation: 7, reason: ReasonOwnerDead},
		"the preferred one is blocked":       {self: second, own: able, members: []members.Member{says(first, members.VIP{Healthy: true, Blocked: true})}, want: Take, generation: 1, reason: ReasonFirst},
		"the preferred one drains":           {self: second, own: able, members: []members.Member{says(first, members.VIP{Healthy: true, Draining: true})}, want: Take, generation: 1, reason: ReasonFirst},
		"the preferred one restarts":         {self: second, own: able, members: []members.Member{held(says(first, members.VIP{Healthy: true}))}, want: Take, generation: 1, reason: ReasonFirst},
		"the owner lives, less preferred":    {self: first, own: able, members: []members.Member{says(second, owner)}},
		"the owner is dead":                  {self: first, own: Own{Healthy: true, Generation: 4}, want: Take, generation: 5, reason: ReasonOwnerDead},
		"the owner restarts":                 {self: first, own: able, members: []members.Member{held(says(second, owner))}},
		"the unhealthy owner restarts":       {self: first, own: able, members: []members.Member{held(says(second, members.VIP{Owned: true, Generation: 4}))}},
		"the owner's backend is dead":        {self: first, own: able, members: []members.Member{says(second, members.VIP{Owned: true, Generation: 4})}, want: Take, generation: 5, reason: ReasonGivenUp},
		"the owner drains":                   {self: second, own: able, members: []members.Member{says(first, members.VIP{Owned: true, Healthy: true, Draining: true, Generation: 4})}, want: Take, generation: 5, reason: ReasonGivenUp},
		"the owner's backend is dead as own": {self: first, members: []members.Member{says(second, members.VIP{Owned: true, Generation: 4})}},
		"not healthy":                        {self: first},
		"no carrier":                         {self: first, own: able, noCarrier: true},
		"no sign of life on the LAN":         {self: first, own: able, noEvidence: true},
		"just started":                       {self: first, own: able, listening: true},
		"starved":                            {self: first, own: able, late: true},
		"somebody else uses it":              {self: first, own: Own{Healthy: true, Blocked: true}},

		"own it":                         {self: second, own: Own{Owned: true, Healthy: true, Generation: 4}, members: []members.Member{says(first, members.VIP{Healthy: true})}, want: Keep, generation: 4, reason: ReasonOwner},
		"own it with a dead backend":     {self: second, own: Own{Owned: true, Generation: 4}, members: []members.Member{says(first, members.VIP{Healthy: true})}, want: Keep, generation: 4, reason: ReasonOwner},
		"own it alone":                   {self: second, own: Own{Owned: true, Healthy: true, Generation: 4}, noEvidence: true, want: Keep, generation: 4, reason: ReasonOwner},
		"own it, another older":          {self: second, own: Own{Owned: true, Healthy: true, Generation: 4}, members: []members.Member{says(first, members.VIP{Owned: true, Healthy: true, Generation: 3})}, want: Keep, generation: 4, reason: ReasonOwner},
		"own it, another newer":          {self: first, own: Own{Owned: true, Healthy: true, Generation: 4}, members: []members.Member{says(second, members.VIP{Owned: true, Healthy: true, Generation: 5})}, want: Release, generation: 5, reason: ReasonSuperseded},
		"own it, another equal":          {self: first, own: Own{Owned: true, Healthy: true, Generation: 4}, members: []members.Member{says(second, owner)}, want: Keep, generation: 4, reason: ReasonOwner},
		"own it, another equal, ranked":  {self: second, own: Own{Owned: true, Healthy: true, Generation: 4}, members: []members.Member{says(first, owner)}, want: Release, generation: 4, reason: ReasonSuperseded},
		"own it, link lost":              {self: first, own: Own{Owned: true, Healthy: true, Generation: 4}, noCarrier: true, want: Release, generation: 4, reason: ReasonNoCarrier},
		"own it, claim gone":             {self: first, own: Own{Owned: true, Healthy: true, Generation: 4}, unclaimed: true, want: Release, generation: 4, reason: ReasonNotClaimed},
		"restarted, still listening":     {self: second, own: Own{Claimed: true, Healthy: true, Generation: 4}, listening: true},
		"restarted, nobody took it":      {self: second, own: Own{Claimed: true, Healthy: true, Generation: 4}, members: []members.Member{says(first, members.VIP{Healthy: true, Generation: 4})}, want: Resume, generation: 4, reason: ReasonRestarted},
		"restarted, another took it":     {self: first, own: Own{Claimed: true, Healthy: true, Generation: 4}, members: []members.Member{says(second, members.VIP{Owned: true, Healthy: true, Generation: 5})}, want: Release, generation: 5, reason: ReasonSuperseded},
		"restarted, no sign of life":     {self: second, own: Own{Claimed: true, Healthy: true, Generation: 4}, noEvidence: true},
		"restarted without its backend":  {self: second, own: Own{Claimed: true, Generation: 4}},
		"restarted, older owner is dead": {self: first, own: Own{Claimed: true, Healthy: true, Generation: 4}, members: []members.Member{says(second, members.VIP{Owned: true, Generation: 3})}, want: Take, generation: 5, reason: ReasonGivenUp},
	} {
		t.Run(name, func(t *testing.T) {
			v := View{
				Self: c.self, VIPs: []VIP{{Addr: vip}}, Own: map[netip.Addr]Own{vip: c.own}, Members: c.members,
				Carrier: !c.noCarrier, Evidence: !c.noEvidence, Listening: c.listening, Late: c.late,
			}
			if c.unclaimed {
				v.VIPs = nil
			}
			got := Elect(v)
			if len(got) != 1 || got[0].Action != c.want || got[0].Reason != c.reason || c.generation > 0 && got[0].Generation != c.generation {
				t.Errorf("got %+v, want %v in generation %d for %s", got, c.want, c.generation, c.reason)
			}
		})
	}
}

// TestElectSpreads checks that VIPs do not all go to one node.
func TestElectSpreads(t *testing.T) {
	count := map[string]int{}
	a := netip.MustParseAddr("203.0.113.0")
	for range 300 {
		best := "n1"
		for _, n := range []string{"n2", "n3"} {
			if Rank(a, n) < Rank(a, best) {
				best = n
			}
		}
		count[best]++
		a = a.Next()
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		if count[n] < 60 {
			t.Errorf("%v", count)
		}
	}
}
