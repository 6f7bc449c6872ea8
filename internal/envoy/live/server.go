package live

import (
	"time"

	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
)

const (
	// pace is the least time between two messages that are read of one Envoy, after the first burst of them. A message
	// holds what came in a tenth of a second, at most 16 KiB. What Envoy cannot send it drops.
	pace  = 50 * time.Millisecond
	burst = 20
)

// A Server takes Envoy's access log of marked requests.
type Server struct {
	servicev3.UnimplementedAccessLogServiceServer

	Log *Log
}

// StreamAccessLogs reads one Envoy's stream until it ends.
func (s *Server) StreamAccessLogs(stream servicev3.AccessLogService_StreamAccessLogsServer) error {
	free := burst
	last := time.Now()
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, e := range message.GetHttpLogs().GetLogEntry() {
			if entry, ok := read(e); ok {
				s.Log.Add(entry)
			}
		}
		now := time.Now()
		free = min(burst, free-1+int(now.Sub(last)/pace))
		last = now
		if free > 0 {
			continue
		}
		free = 1
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(pace):
		}
	}
}
