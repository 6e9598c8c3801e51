package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	maxOptions = 64
	// maxOption is the longest option that is looked at: an export's name is
	// at most 4096 bytes.
	maxOption = 8 << 10
	// maxSkipped is the longest option that is refused politely.
	maxSkipped = 64 << 10
)

// errAborted is returned for a client that leaves during negotiation.
var errAborted = errors.New("nbd: the client left without choosing an export")

var be = binary.BigEndian

// haggling is a negotiation (fixed newstyle) under way.
type haggling struct {
	rw         io.ReadWriter
	export     *Export
	noZeroes   bool
	structured bool
	out        []byte
}

// negotiate leads a client to the transmission phase, and returns whether it
// wants structured replies. It reads not a byte further than that.
func negotiate(rw io.ReadWriter, e *Export) (structured bool, err error) {
	h := &haggling{rw: rw, export: e}
	h.out = be.AppendUint64(h.out, magicServer)
	h.out = be.AppendUint64(h.out, magicOption)
	h.out = be.AppendUint16(h.out, flagFixedNewstyle|flagNoZeroes)
	if err := h.send(); err != nil {
		return false, err
	}
	var b [16]byte
	if _, err := io.ReadFull(rw, b[:4]); err != nil {
		return false, fmt.Errorf("nbd: reading client flags: %w", err)
	}
	flags := be.Uint32(b[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return false, fmt.Errorf("nbd: unknown client flags %#x", flags)
	}
	h.noZeroes = flags&flagNoZeroes != 0
	for range maxOptions {
		if _, err := io.ReadFull(rw, b[:]); err != nil {
			return false, fmt.Errorf("nbd: reading an option: %w", err)
		}
		if be.Uint64(b[:]) != magicOption {
			return false, fmt.Errorf("nbd: bad magic %#x of an option", be.Uint64(b[:]))
		}
		chosen, err := h.option(be.Uint32(b[8:]), be.Uint32(b[12:]))
		if err != nil {
			return false, err
		}
		if err := h.send(); err != nil {
			return false, err
		}
		if chosen {
			return h.structured, nil
		}
	}
	return false, fmt.Errorf("nbd: the client sent more than %d options", maxOptions)
}

// option answers an option, and reports whether the transmission phase follows.
func (h *haggling) option(option, length uint32) (chosen bool, err error) {
	if length > maxOption {
		if length > maxSkipped || option == optExportName {
			return false, fmt.Errorf("nbd: option %d of %d bytes", option, length)
		}
		if _, err := io.CopyN(io.Discard, h.rw, int64(length)); err != nil {
			return false, fmt.Errorf("nbd: reading option %d: %w", option, err)
		}
		h.reply(option, repErrTooBig, nil)
		return false, nil
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(h.rw, data); err != nil {
		return false, fmt.Errorf("nbd: reading option %d: %w", option, err)
	}
	switch option {
	case optExportName:
		return true, h.exportName(string(data))
	case optAbort:
		h.reply(option, repAck, nil)
		h.send()
		return false, errAborted
	case optList:
		h.list(data)
	case optInfo, optGo:
		return h.info(option, data), nil
	case optStructuredReply:
		if len(data) != 0 {
			h.reply(option, repErrInvalid, nil)
			break
		}
		h.structured = true
		h.reply(option, repAck, nil)
	default:
		h.reply(option, repErrUnsup, nil)
	}
	return false, nil
}

// exportName is the old way to choose, which has no way to say no.
func (h *haggling) exportName(name string) error {
	if !h.known(name) {
		return fmt.Errorf("nbd: the client asked for export %q, which is not here", name)
	}
	h.out = be.AppendUint64(h.out, uint64(h.export.Size()))
	h.out = be.AppendUint16(h.out, h.flags())
	if !h.noZeroes {
		h.out = append(h.out, make([]byte, 124)...)
	}
	return nil
}

func (h *haggling) list(data []byte) {
	if len(data) != 0 {
		h.reply(optList, repErrInvalid, nil)
		return
	}
	b := be.AppendUint32(nil, uint32(len(h.export.name)))
	b = append(b, h.export.name...)
	h.reply(optList, repServer, append(b, h.export.about...))
	h.reply(optList, repAck, nil)
}

// info answers the options INFO and GO: a name with its length, and a list of
// what the client wants to know. Block sizes are told to all, as clients that
// do not ask may still be able to heed them.
func (h *haggling) info(option uint32, data []byte) (chosen bool) {
	if len(data) < 6 || uint64(be.Uint32(data)) > uint64(len(data)-6) {
		h.reply(option, repErrInvalid, nil)
		return false
	}
	n := int(be.Uint32(data))
	name, rest := string(data[4:4+n]), data[4+n:]
	wants := rest[2:]
	if len(wants) != 2*int(be.Uint16(rest)) {
		h.reply(option, repErrInvalid, nil)
		return false
	}
	if !h.known(name) {
		h.reply(option, repErrUnknown, []byte("no such export"))
		return false
	}
	var wantsName, wantsAbout bool // however often it asks, it is told once
	for ; len(wants) > 0; wants = wants[2:] {
		kind := be.Uint16(wants)
		wantsName = wantsName || kind == infoName
		wantsAbout = wantsAbout || kind == infoDescription
	}
	if wantsName {
		h.reply(option, repInfo, append(be.AppendUint16(nil, infoName), h.export.name...))
	}
	if wantsAbout {
		h.reply(option, repInfo, append(be.AppendUint16(nil, infoDescription), h.export.about...))
	}
	least, preferred, most := h.export.limits.Load().blockSizes()
	b := be.AppendUint16(nil, infoBlockSize)
	b = be.AppendUint32(be.AppendUint32(be.AppendUint32(b, least), preferred), most)
	h.reply(option, repInfo, b)
	b = be.AppendUint16(nil, infoExport)
	b = be.AppendUint64(b, uint64(h.export.Size()))
	h.reply(option, repInfo, be.AppendUint16(b, h.flags()))
	h.reply(option, repAck, nil)
	return option == optGo
}

func (h *haggling) known(name string) bool { return name == "" || name == h.export.name }

func (h *haggling) flags() uint16 {
	if h.structured {
		return h.export.Flags() | FlagSendDF
	}
	return h.export.Flags()
}

func (h *haggling) reply(option, kind uint32, data []byte) {
	h.out = be.AppendUint64(h.out, magicOptReply)
	h.out = be.AppendUint32(h.out, option)
	h.out = be.AppendUint32(h.out, kind)
	h.out = be.AppendUint32(h.out, uint32(len(data)))
	h.out = append(h.out, data...)
}

func (h *haggling) send() error {
	_, err := h.rw.Write(h.out)
	h.out = h.out[:0]
	if err != nil {
		return fmt.Errorf("nbd: negotiating: %w", err)
	}
	return nil
}
