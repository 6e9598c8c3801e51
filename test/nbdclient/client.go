// Package nbdclient is a small client of NBD servers on Unix sockets, for the
// tests and the demonstration: fixed newstyle, NBD_OPT_EXPORT_NAME, simple
// replies, one request at a time.
package nbdclient

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"syscall"
)

// Chunk is the size of a request in bytes; a request may always have as much as
// 32 MiB (block size constraints in the NBD protocol's proto.md).
const Chunk = 1 << 20

// What the protocol calls them in its proto.md.
const (
	magicServer  = 0x4e42444d41474943 // NBDMAGIC
	magicOption  = 0x49484156454f5054 // IHAVEOPT
	magicRequest = 0x25609513
	magicReply   = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optExportName = 1

	flagSendFlush = 1 << 2

	cmdRead  = 0
	cmdWrite = 1
	cmdClose = 2
	cmdFlush = 3
)

// Client is a connection to the default export of a server.
type Client struct {
	conn   net.Conn
	size   int64 // bytes
	flags  uint16
	handle uint64
}

// Dial connects to the server on a socket.
func Dial(socket string) (*Client, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn}
	if err := c.negotiate(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("negotiation with %s: %w", socket, err)
	}
	return c, nil
}

func (c *Client) negotiate() error {
	var greeting [18]byte
	if _, err := io.ReadFull(c.conn, greeting[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint16(greeting[16:])
	if binary.BigEndian.Uint64(greeting[:]) != magicServer ||
		binary.BigEndian.Uint64(greeting[8:]) != magicOption || flags&flagFixedNewstyle == 0 {
		return fmt.Errorf("this is no NBD server of the fixed newstyle")
	}
	flags &= flagFixedNewstyle | flagNoZeroes
	answer := binary.BigEndian.AppendUint32(nil, uint32(flags))
	answer = binary.BigEndian.AppendUint64(answer, magicOption)
	answer = binary.BigEndian.AppendUint32(answer, optExportName)
	answer = binary.BigEndian.AppendUint32(answer, 0) // the default export has no name
	if _, err := c.conn.Write(answer); err != nil {
		return err
	}
	export := make([]byte, 10)
	if flags&flagNoZeroes == 0 {
		export = make([]byte, 10+124)
	}
	if _, err := io.ReadFull(c.conn, export); err != nil {
		return err
	}
	size := binary.BigEndian.Uint64(export)
	if size > 1<<63-1 {
		return fmt.Errorf("an export of %d bytes", size)
	}
	c.size, c.flags = int64(size), binary.BigEndian.Uint16(export[8:])
	return nil
}

func (c *Client) send(command uint16, off int64, length int, data []byte) error {
	c.handle++
	h := binary.BigEndian.AppendUint32(nil, magicRequest)
	h = binary.BigEndian.AppendUint16(h, 0)
	h = binary.BigEndian.AppendUint16(h, command)
	h = binary.BigEndian.AppendUint64(h, c.handle)
	h = binary.BigEndian.AppendUint64(h, uint64(off))
	h = binary.BigEndian.AppendUint32(h, uint32(length))
	buffers := net.Buffers{h, data}
	_, err := buffers.WriteTo(c.conn)
	return err
}

// request sends a command and reads its reply, but for the data of a read.
func (c *Client) request(what string, command uint16, off int64, length int, data []byte) error {
	if err := c.send(command, off, length, data); err != nil {
		return fmt.Errorf("%s at %d: %w", what, off, err)
	}
	var reply [16]byte
	if _, err := io.ReadFull(c.conn, reply[:]); err != nil {
		return fmt.Errorf("%s at %d: %w", what, off, err)
	}
	if binary.BigEndian.Uint32(reply[:]) != magicReply || binary.BigEndian.Uint64(reply[8:]) != c.handle {
		return fmt.Errorf("%s at %d: this is no reply to it: % x", what, off, reply)
	}
	if errno := binary.BigEndian.Uint32(reply[4:]); errno != 0 {
		return fmt.Errorf("%s at %d: %w", what, off, syscall.Errno(errno))
	}
	return nil
}

// Size is the export's, in bytes.
func (c *Client) Size() int64 { return c.size }

// ReadAt reads len(p) bytes.
func (c *Client) ReadAt(p []byte, off int64) error {
	if err := c.request("read", cmdRead, off, len(p), nil); err != nil {
		return err
	}
	_, err := io.ReadFull(c.conn, p)
	return err
}

// WriteAt writes p.
func (c *Client) WriteAt(p []byte, off int64) error {
	return c.request("write", cmdWrite, off, len(p), p)
}

// Flush makes durable what was written, if the server can.
func (c *Client) Flush() error {
	if c.flags&flagSendFlush == 0 {
		return nil
	}
	return c.request("flush", cmdFlush, 0, 0, nil)
}

// Close says goodbye and closes the connection.
func (c *Client) Close() error {
	c.send(cmdClose, 0, 0, nil)
	return c.conn.Close()
}
