package trace

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestQuestionJSON(t *testing.T) {
	q, err := Parse("shop/web:80", "", netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(Trace{Question: q})
	if err != nil || !strings.Contains(string(data), `"service":{"namespace":"shop","name":"web"}`) {
		t.Errorf("%s, %v", data, err)
	}
	if back := (Trace{}); json.Unmarshal(data, &back) != nil || back.Question != q {
		t.Errorf("%s is read as %+v", data, back.Question)
	}
}
