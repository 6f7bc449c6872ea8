package main

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"hythe.dev/hythe/internal/kube"
	"hythe.dev/hythe/internal/model"
	"hythe.dev/hythe/node/proxy"
)

func TestZZHeap(t *testing.T) {
	w := world{services: 5000, endpoints: 50}
	server, err := w.serve()
	if err != nil { t.Fatal(err) }
	runtime.GC()
	var base, m runtime.MemStats
	runtime.ReadMemStats(&base)
	ts := httptest.NewServer(server)
	api, err := kube.NewAPI(&rest.Config{Host: ts.URL}, kube.APIOptions{Kinds: kube.NodeKinds(), Bare: true}, slog.New(slog.DiscardHandler))
	if err != nil { t.Fatal(err) }
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan *model.Snapshot, 100)
	go api.Run(ctx, func(s *model.Snapshot) { got <- s })
	s := <-got
	report := func(what string) {
		runtime.GC(); runtime.GC()
		runtime.ReadMemStats(&m)
		fmt.Printf("%s: %d MB\n", what, (m.HeapAlloc-base.HeapAlloc)>>20)
	}
	report("kube")
	table, end, err := newTable()
	if err != nil { t.Fatal(err) }
	defer end()
	var b proxy.Builder
	state, _ := b.Build(s, nodeName, proxy.DefaultSettings())
	report("build")
	if err := table.Set(ctx, state); err != nil { t.Fatal(err) }
	report("set")
	f, _ := os.Create("/tmp/bench6/prof/heap.out")
	pprof.WriteHeapProfile(f)
	f.Close()
	runtime.KeepAlive(state); runtime.KeepAlive(s)
	cancel()
}

func TestZZCPU(t *testing.T) {
	w := world{services: 10000, endpoints: 3}
	s := w.snapshot()
	f, _ := os.Create("/tmp/bench6/prof/cpu.out")
	pprof.StartCPUProfile(f)
	for range 3 {
		table, end, err := newTable()
		if err != nil { t.Fatal(err) }
		t0 := time.Now()
		state, _ := proxy.Build(s, nodeName, proxy.DefaultSettings())
		t1 := time.Now()
		if err := table.Set(t.Context(), state); err != nil { t.Fatal(err) }
		fmt.Println("build", t1.Sub(t0), "set", time.Since(t1))
		end()
	}
	pprof.StopCPUProfile()
	f.Close()
}
