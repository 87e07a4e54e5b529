package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// far measures how fast queued mails leave over a network with a round trip of 20 ms, beside what a mail a round trip comes to, and beside as many plain
// loops around go-mail.
func (b *bench) far(ctx context.Context) error {
	const trip = 20 * time.Millisecond
	s := &sending{bench: b, mails: 12_000, lanes: 8}
	rounds := 3
	if b.quick {
		s.mails, rounds = 400, 1
	}
	var limit []float64
	for range rounds {
		if err := s.distantRound(ctx, trip); err != nil {
			return fmt.Errorf("far: %w", err)
		}
		limit = append(limit, float64(s.lanes)/trip.Seconds())
	}
	return table(b.out, fmt.Sprintf("far: %d queued mails of 2 KB, %s there and back, %d connections; median of %d rounds", s.mails, trip, s.lanes, rounds), []line{
		{what: "mails, beside one a round trip", unit: "/s", bare: limit, ours: s.ours, bar: 0.9, atLeast: true},
		{what: fmt.Sprintf("  beside %d go-mail loops", s.lanes), unit: "/s", bare: s.loops, ours: s.ours},
	})
}

func (s *sending) distantRound(ctx context.Context, trip time.Duration) error {
	sink, err := startSink(ctx)
	if err != nil {
		return err
	}
	defer sink.stop()
	d, err := startDistance(sink.addr, trip)
	if err != nil {
		return err
	}
	defer d.close()
	all := s.mails
	s.mails = all / 8 // they are slow
	err = s.goMail(ctx, &goMail{relay: d.addr(), workers: s.lanes}, &s.loops)
	if s.mails = all; err != nil {
		return err
	}
	return s.postman(ctx, d.addr())
}

// distance is a network between a client and a server on this machine: what is written arrives half a round trip later.
type distance struct {
	listener net.Listener
	to       string
	trip     time.Duration

	mu      sync.Mutex
	open    map[net.Conn]bool
	serving sync.WaitGroup
}

func startDistance(to string, trip time.Duration) (*distance, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &distance{listener: l, to: to, trip: trip, open: make(map[net.Conn]bool)}
	d.serving.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return // closed
			}
			d.serving.Go(func() { d.serve(near) })
		}
	})
	return d, nil
}

func (d *distance) addr() string { return d.listener.Addr().String() }

func (d *distance) close() {
	d.listener.Close()
	d.mu.Lock()
	for conn := range d.open {
		conn.Close()
	}
	d.mu.Unlock()
	d.serving.Wait()
}

func (d *distance) serve(near net.Conn) {
	time.Sleep(d.trip) // TCP's own
	far, err := net.Dial("tcp", d.to)
	if err != nil {
		near.Close()
		return
	}
	d.mu.Lock()
	d.open[near], d.open[far] = true, true
	d.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { d.carry(near, far) })
	both.Go(func() { d.carry(far, near) })
	both.Wait()
	d.mu.Lock()
	delete(d.open, near)
	delete(d.open, far)
	d.mu.Unlock()
}

// packet is what was read at once, and when it arrives.
type packet struct {
	data []byte
	due  time.Time
}

func (d *distance) carry(from, to net.Conn) {
	alarm, err := newAlarm()
	if err != nil {
		from.Close()
		to.Close()
		return
	}
	defer alarm.Close() //nolint:errcheck // it was only waited for
	wire := make(chan packet, 1000)
	var writing sync.WaitGroup
	writing.Go(func() {
		for p := range wire {
			alarm.until(p.due)
			to.Write(p.data) //nolint:errcheck // the other direction ends with the connection
		}
		to.Close()
	})
	defer writing.Wait()
	defer close(wire)
	for {
		chunk := make([]byte, 16<<10)
		n, err := from.Read(chunk)
		if err != nil {
			return
		}
		wire <- packet{chunk[:n], time.Now().Add(d.trip / 2)}
	}
}

// alarm wakes when it should. The runtime's own timers wake a millisecond late as often as not (epoll_wait counts in those), which would make a trip of
// twenty one of twenty-two; a timer that is a file does not.
type alarm struct {
	*os.File
	fd int
}

func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	return alarm{os.NewFile(uintptr(fd), "timer"), fd}, err
}

func (a alarm) until(due time.Time) {
	left := time.Until(due)
	if left <= 0 {
		return
	}
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(left))}
	if err := unix.TimerfdSettime(a.fd, 0, &at, nil); err != nil {
		panic(err) // it is a timer, and the time is one
	}
	var times [8]byte
	a.Read(times[:]) //nolint:errcheck // closed: the benchmark is at its end
}
