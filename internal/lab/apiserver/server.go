package apiserver

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// A Server says how an etcd and a kube-apiserver are run.
type Server struct {
	// Dir holds their data and keys.
	Dir string
	// Binaries is the folder of the programs; see Binaries.
	Binaries string
	// Address is where kube-apiserver listens and what it calls itself. etcd listens on loopback.
	Address             netip.AddrPort
	EtcdPort, PeerPort  uint16
	ServiceCIDR         netip.Prefix
	SecondServiceCIDR   string // of the other family, empty for none
	PublishOwnEndpoints bool   // as endpoints of the Service default/kubernetes
}

// Binaries finds the folder that scripts/apiserver.sh fills.
func Binaries() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find programs of the API server: %w", err)
	}
	dir := filepath.Join(cache, "hythe", "bin")
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("find %s: %w: build it with scripts/apiserver.sh build", name, err)
		}
	}
	return dir, nil
}

// WriteKeys writes what kube-apiserver needs of an authority.
func (s Server) WriteKeys(a *Authority) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("make folder of the API server: %w", err)
	}
	addresses := []netip.Addr{s.Address.Addr(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if s.ServiceCIDR.IsValid() {
		addresses = append(addresses, s.ServiceCIDR.Addr().Next()) // the Service default/kubernetes
	}
	chain, key, errServer := a.Issue("kube-apiserver", nil, addresses...)
	_, account, errAccount := a.Issue("service-accounts", nil)
	if err := errors.Join(errServer, errAccount); err != nil {
		return err
	}
	for name, data := range map[string][]byte{"ca.crt": a.pem, "server.crt": chain, "server.key": key, "accounts.key": account} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), data, 0o600); err != nil {
			return fmt.Errorf("write certificate: %w", err)
		}
	}
	return nil
}

// URL is where users ask.
func (s Server) URL() string { return "https://" + s.Address.String() }

// EtcdURL is where etcd answers, on loopback.
func (s Server) EtcdURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.EtcdPort) }

// Etcd is the command line of etcd.
func (s Server) Etcd() []string {
	peer := fmt.Sprintf("http://127.0.0.1:%d", s.PeerPort)
	return []string{
		filepath.Join(s.Binaries, "etcd"), "--data-dir=" + filepath.Join(s.Dir, "etcd"), "--unsafe-no-fsync",
		"--logger=zap", "--log-level=error",
		"--listen-client-urls=" + s.EtcdURL(), "--advertise-client-urls=" + s.EtcdURL(),
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer,
	}
}

// API is the command line of kube-apiserver.
func (s Server) API() []string {
	file := func(name string) string { return filepath.Join(s.Dir, name) }
	reconciler := "none"
	if s.PublishOwnEndpoints {
		reconciler = "lease"
	}
	ranges := s.ServiceCIDR.String()
	if s.SecondServiceCIDR != "" {
		ranges += "," + s.SecondServiceCIDR
	}
	return []string{
		filepath.Join(s.Binaries, "kube-apiserver"), "--etcd-servers=" + s.EtcdURL(),
		"--bind-address=" + s.Address.Addr().String(), fmt.Sprintf("--secure-port=%d", s.Address.Port()),
		"--advertise-address=" + s.Address.Addr().String(),
		"--tls-cert-file=" + file("server.crt"), "--tls-private-key-file=" + file("server.key"), "--client-ca-file=" + file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + file("accounts.key"), "--service-account-signing-key-file=" + file("accounts.key"),
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount",
		"--service-cluster-ip-range=" + ranges, "--endpoint-reconciler-type=" + reconciler, "--profiling=false",
		"--shutdown-delay-duration=0s", "--shutdown-watch-termination-grace-period=2s", "--event-ttl=10m",
	}
}
