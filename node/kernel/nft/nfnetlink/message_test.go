package nfnetlink

import "testing"

// FuzzEach reads attributes as the kernel, or anybody who claims to be it, may send them.
func FuzzEach(f *testing.F) {
	f.Add(NewTable(TableName, "x", 0).Data[4:])
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		each(b, func(_ uint16, data []byte) { total += len(data) + 4 })
		if total > len(b) {
			t.Errorf("%d bytes of attributes in %d", total, len(b))
		}
	})
}
