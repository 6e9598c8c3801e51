package control

import (
	"bufio"
	"errors"
	"io"
	"net"
	"time"
)

// errTooLong is a line longer than the limit.
var errTooLong = errors.New("line too long")

// readLine reads a line of at most limit bytes and returns it without its line
// feed. A line that ends with the stream is not one.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, errTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// pacedWriter writes to a connection whose other end must keep reading: each piece
// has its own deadline, and all of them together have one.
type pacedWriter struct {
	conn net.Conn
	step time.Duration
	end  time.Time
	left int // bytes that may still be written
}

// piece is how much of a reply must be taken within a step, in bytes.
const piece = 64 << 10

var errReplyTooLong = errors.New("reply too long")

func (w *pacedWriter) Write(p []byte) (n int, err error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errReplyTooLong
	}
	for n < len(p) && err == nil {
		deadline := time.Now().Add(w.step)
		if deadline.After(w.end) {
			deadline = w.end
		}
		if err = w.conn.SetWriteDeadline(deadline); err != nil {
			break
		}
		var written int
		written, err = w.conn.Write(p[n:min(n+piece, len(p))])
		n += written
	}
	return n, err
}
