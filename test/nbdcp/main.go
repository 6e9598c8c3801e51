// Nbdcp copies a file to an NBD server on a Unix socket, or such a server's
// export to a file. It is what the demonstration falls back to where neither
// nbdcopy nor qemu-img is installed, and speaks as little of the protocol
// (fixed newstyle, NBD_OPT_EXPORT_NAME, simple replies) as that needs.
//
//	nbdcp FILE SOCKET.sock
//	nbdcp SOCKET.sock FILE
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"iscsictl/test/nbdclient"
)

func main() {
	if len(os.Args) != 3 || isSocket(os.Args[1]) == isSocket(os.Args[2]) {
		fmt.Fprintln(os.Stderr, "usage: nbdcp FILE SOCKET.sock | nbdcp SOCKET.sock FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "nbdcp:", err)
		os.Exit(1)
	}
}

func isSocket(name string) bool { return strings.HasSuffix(name, ".sock") }

func run(from, to string) error {
	if isSocket(from) {
		return download(from, to)
	}
	return upload(from, to)
}

func upload(name, socket string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	c, err := nbdclient.Dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, nbdclient.Chunk)
	for off := int64(0); ; {
		n, err := io.ReadFull(file, buf)
		if err == io.EOF {
			return c.Flush()
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return err
		}
		if off+int64(n) > c.Size() {
			return fmt.Errorf("%s is larger than the disk, which has %d bytes", name, c.Size())
		}
		if err := c.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
}

func download(socket, name string) (err error) {
	c, err := nbdclient.Dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if e := file.Close(); err == nil {
			err = e
		}
	}()
	buf := make([]byte, nbdclient.Chunk)
	for off := int64(0); off < c.Size(); {
		piece := buf[:min(nbdclient.Chunk, c.Size()-off)]
		if err := c.ReadAt(piece, off); err != nil {
			return err
		}
		if _, err := file.Write(piece); err != nil {
			return err
		}
		off += int64(len(piece))
	}
	return nil
}
