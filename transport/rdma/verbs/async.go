//go:build linux && cgo && rdma

package verbs

// #include "shim.h"
import "C"

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// A device tells what the peer has done wrong in events of its own: requests
// show no more than that the queue pair has failed, or nothing at all. The
// context that has the events is librdmacm's, and is shared by all connections
// of this process through the device; it is watched as long as there are any.
var devices = struct {
	sync.Mutex
	watched map[C.uintptr_t]*deviceWatch // by context
}{watched: map[C.uintptr_t]*deviceWatch{}}

type deviceWatch struct {
	context C.uintptr_t
	events  *channel
	async   C.struct_vb_async
	conns   map[C.uintptr_t]*conn // by queue pair
	ended   chan struct{}
}

// watchDevice has a connection told of its device's errors. Without a
// descriptor for that, it does without.
func watchDevice(c *conn) {
	context := C.vb_context(c.h.c)
	devices.Lock()
	defer devices.Unlock()
	w := devices.watched[context]
	if w == nil {
		w = &deviceWatch{context: context, conns: map[C.uintptr_t]*conn{}, ended: make(chan struct{})}
		fd := C.vb_async_fd(context)
		if fd < 0 {
			return
		}
		var err error
		if w.events, err = newChannel(int(fd), "asynchronous events", w.take); err != nil {
			return
		}
		devices.watched[context] = w
		go w.run()
	}
	w.conns[C.vb_queue(c.h.c)] = c
}

// unwatchDevice ends that. The last connection waits until the watch has ended,
// since the context may go with it.
func unwatchDevice(c *conn) {
	devices.Lock()
	w := devices.watched[C.vb_context(c.h.c)]
	if w == nil {
		devices.Unlock()
		return
	}
	delete(w.conns, C.vb_queue(c.h.c))
	last := len(w.conns) == 0
	if last {
		delete(devices.watched, w.context)
	}
	devices.Unlock()
	if last {
		w.events.wake()
		<-w.ended
		w.events.close()
	}
}

func (w *deviceWatch) take() (bool, error) {
	switch err := errno(C.vb_next_async(w.context, &w.async)); err {
	case nil:
		return true, nil
	case unix.EAGAIN, unix.EINTR:
		return false, nil
	default:
		return false, err
	}
}

func (w *deviceWatch) run() {
	defer close(w.ended)
	for w.events.wait() == nil {
		if err := deviceErrors[w.async._type]; err != nil {
			w.tell(err)
		}
		C.vb_ack_async(&w.async)
	}
}

// tell ends the connection that an event is about, or all of them.
func (w *deviceWatch) tell(err error) {
	devices.Lock()
	defer devices.Unlock()
	for queue, c := range w.conns {
		if queue == w.async.queue || w.async._type == C.VB_ASYNC_DEVICE_FATAL {
			c.lost(err)
		}
	}
}

var deviceErrors = [...]error{
	C.VB_ASYNC_QP_FATAL:     errors.New("verbs: the device reports that the queue pair has failed"),
	C.VB_ASYNC_QP_REQUEST:   errors.New("verbs: the peer asked for what it may not: an invalid request, or memory that it was not lent for that"),
	C.VB_ASYNC_QP_ACCESS:    errors.New("verbs: the peer reached for memory that it was not lent"),
	C.VB_ASYNC_DEVICE_FATAL: errors.New("verbs: the RDMA device has failed, or was removed"),
}
