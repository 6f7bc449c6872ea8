package link

// CheckPodHost compares the node's end of a pod's link with what it should be, in the calling thread's namespace.
// exists and up are of the link; missing is what RepairPods would change, nil if nothing.
func CheckPodHost(want Pod) (exists, up bool, missing []string, err error) {
	s, err := currentSpace()
	if err != nil {
		return false, false, nil, err
	}
	defer s.close()
	s.dry = true
	l, err := s.link(want.HostName)
	if err != nil || l == nil {
		return false, false, nil, err
	}
	at := l.Attrs()
	err = s.end(want.HostName, at.Index, at.MTU, want.Host)
	return true, at.OperState.String() == "up", s.pending, err
}
