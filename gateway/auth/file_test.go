package auth

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"hythe.dev/hythe/gateway/policy"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "auth.json")
	r := &Reader{Path: path}
	if _, _, err := r.Entry("shop/a"); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("without a file: %v", err)
	}
	entry := Entry{
		Users: []User{{"ada", "{PLAIN}x"}}, Realm: "r", Any: true,
		Ask: &Ask{
			ExternalAuth: policy.ExternalAuth{
				Scheme: "http", Host: "auth", Port: 80, URI: policy.Pattern{{Text: "/x?u="}, {Of: policy.PartURI}},
				Copy: []policy.HeaderCopy{{From: "A", To: "B"}}, CacheFor: []policy.CacheTime{{Status: 200, For: time.Minute}},
				Headers: []policy.AskHeader{{Name: "X", Value: policy.Pattern{{Text: "y"}}}},
			},
			Targets: []Target{{For: "a.test", Host: "auth", Addresses: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80")}, TLS: true}},
		},
	}
	w := &Writer{Path: path}
	now := time.Unix(1000, 0)
	if err := w.Set(Table{"shop/a": entry, "shop/b": {Realm: "old"}}, now); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with hashes has mode %v, %v", info.Mode(), err)
	}
	got, first, err := r.Entry("shop/a")
	if err != nil || !reflect.DeepEqual(*got, entry) {
		t.Errorf("read %+v, %v; want %+v", got, err, entry)
	}
	if _, again, _ := r.Entry("shop/a"); again != first {
		t.Error("the version changed without a change")
	}
	if _, _, err := r.Entry("shop/c"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an unknown one: %v", err)
	}
	// A new gateway, which knows nothing of the old one's.
	w = &Writer{Path: path}
	step := func(after time.Duration, table Table, wantB bool) {
		t.Helper()
		if err := w.Set(table, now.Add(after)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Entry("shop/b"); (err == nil) != wantB {
			t.Errorf("after %s: %v", after, err)
		}
	}
	step(0, Table{"shop/a": {Realm: "new"}}, true)
	if got, second, err := r.Entry("shop/a"); err != nil || got.Realm != "new" || second == first {
		t.Errorf("after a change: %+v, %v", got, err)
	}
	step(59*time.Second, Table{"shop/a": {}}, true)
	step(61*time.Second, Table{"shop/a": {}}, false)
	step(62*time.Second, nil, false)
}

// TestUnknownFieldCloses has a file of a later version, in which one entry asks for something new.
func TestUnknownFieldCloses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.json")
	text := `{"shop/new": {"Users": [{"Name": "a", "Hash": "{PLAIN}geheim"}], "Token": "x"}, "shop/old": {"Realm": "r"}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Reader{Path: path}
	if _, _, err := r.Entry("shop/new"); err == nil {
		t.Error("an entry that asks for something unknown is taken")
	}
	if _, _, err := r.Entry("shop/old"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(`{"shop/old": `), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Entry("shop/old"); err == nil {
		t.Error("half a file is taken")
	}
}
