package image

import "path/filepath"

// Pause is the image of the container that holds a pod's namespaces.
func Pause(binaries, tag string) Image {
	return Image{
		Tags: []string{tag}, Entrypoint: []string{"/pause"},
		Entries: []Entry{{Path: "/pause", Source: filepath.Join(binaries, "pause")}},
	}
}

// CoreDNS is the image of the cluster's DNS server.
func CoreDNS(binaries, tag string) Image {
	return Image{
		Tags: []string{tag}, Entrypoint: []string{"/coredns"},
		Entries: []Entry{{Path: "/coredns", Source: filepath.Join(binaries, "coredns")}},
	}
}

// Boom is the image of the one test of Kubernetes' that sends bad packets.
func Boom(binaries, tag string) Image {
	return Image{
		Tags: []string{tag}, Entrypoint: []string{"/regression-issue-74839"},
		Entries: []Entry{{Path: "/regression-issue-74839", Source: filepath.Join(binaries, "regression-issue-74839")}},
	}
}

// Agnhost is the image that Kubernetes' own tests use, with the programs that its Dockerfile installs.
func Agnhost(binaries string, tags ...string) (Image, error) {
	programs, err := Programs("bash", "busybox", "curl", "dig", "nc", "ss", "iperf", "ip", "ipcs", "getent", "wget")
	if err != nil {
		return Image{}, err
	}
	// Debian's busybox, as a shell, takes its own nc, which has neither -u nor -v, and not the one in the path. Its wget crashes.
	applets, err := Applets("sh", "bash", "dig", "nc", "ss", "ip", "ipcs", "getent", "wget", "busybox")
	if err != nil {
		return Image{}, err
	}
	entries := append(programs, applets...)
	entries = append(entries,
		Entry{Path: "/bin/bash", Link: "/usr/bin/bash"},
		Entry{Path: "/bin/sh", Link: "/usr/bin/bash"},
		Entry{Path: "/usr/local/bin/iperf", Link: "/usr/bin/iperf"},
		Entry{Path: "/agnhost", Source: filepath.Join(binaries, "agnhost")},
		Entry{Path: "/agnhost-2", Link: "agnhost"},
		Entry{Path: "/coredns", Source: filepath.Join(binaries, "coredns")},
		Entry{Path: "/localhost.crt", Source: filepath.Join(binaries, "agnhost.crt"), Mode: 0o644},
		Entry{Path: "/localhost.key", Source: filepath.Join(binaries, "agnhost.key"), Mode: 0o644},
		Entry{Path: "/uploads/"},
		Entry{Path: "/var/tmp/", Mode: 0o1777},
		Entry{Path: "/tmp/", Mode: 0o1777},
		Entry{Path: "/etc/wgetrc", Data: "tries = 1\n", Mode: 0o644}, // as busybox's
		Entry{Path: "/etc/nsswitch.conf", Data: "hosts: files dns\n", Mode: 0o644},
		Entry{Path: "/etc/passwd", Mode: 0o644, Data: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n" +
			"user-defined-in-image:x:1000:1000::/:/bin/sh\n"},
		Entry{Path: "/etc/group", Mode: 0o644, Data: "root:x:0:\nnobody:x:65534:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"},
	)
	return Image{
		Tags: tags, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Entries: entries,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}, nil
}
