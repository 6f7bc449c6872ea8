package nginx

import (
	"bytes"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// testID numbers all requests, so that servers see which belong together.
var testID atomic.Int64

// cookieValue is the value of a Set-Cookie.
var cookieValue = regexp.MustCompile(`^([^=]*)="?[^;"]*"?`)

// orders does what the header Test-Answer wants of a server.
type orders struct {
	mu    sync.Mutex
	tries map[string]int // by Test-Id
}

// onlyFor says whether Test-Answer is for a backend: Test-Only may name one.
func onlyFor(r *http.Request, backend string) bool {
	only := r.Header.Get("Test-Only")
	return only == "" || only == backend
}

// early adds the headers of Test-Header to the answer, and answers before the request was read to its end.
func (o *orders) early(w http.ResponseWriter, r *http.Request) bool {
	order := r.Header.Get("Test-Answer")
	for _, h := range r.Header.Values("Test-Header") {
		name, value, _ := strings.Cut(h, ": ")
		w.Header().Add(name, value)
	}
	if order == "refuse" {
		order = "early 404"
	}
	text, ok := strings.CutPrefix(order, "early ")
	if !ok {
		return false
	}
	status, _ := strconv.Atoi(text)
	w.WriteHeader(status)
	_ = http.NewResponseController(w).Flush()
	return true
}

func (o *orders) answer(w http.ResponseWriter, r *http.Request) bool {
	order := r.Header.Get("Test-Answer")
	o.mu.Lock()
	if o.tries == nil {
		o.tries = map[string]int{}
	}
	id := r.Header.Get("Test-Id")
	o.tries[id]++
	tries := o.tries[id]
	o.mu.Unlock()
	if kib, ok := strings.CutPrefix(order, "kib "); ok {
		n, _ := strconv.Atoi(kib)
		_, _ = w.Write(bytes.Repeat([]byte("x"), n<<10))
		return true
	}
	if parts, ok := strings.CutPrefix(order, "drip "); ok {
		n, _ := strconv.Atoi(parts)
		for range n {
			fmt.Fprint(w, "x")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(600 * time.Millisecond) // what the request is about
		}
		return true
	}
	switch order {
	case "":
		return false
	case "stall":
		<-r.Context().Done()
	case "reset":
		panic(http.ErrAbortHandler)
	case "reset once":
		if tries == 1 {
			panic(http.ErrAbortHandler)
		}
		return false
	default:
		status, _ := strconv.Atoi(order)
		w.Header().Set("Tries", strconv.Itoa(tries))
		w.WriteHeader(status)
	}
	return true
}
