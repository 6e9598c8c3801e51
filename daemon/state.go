package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"iscsictl/conf"
)

// state is what must outlive the daemon. It holds secrets.
type state struct {
	BootID   string            `json:"bootId"` // of the boot that all but LastID belongs to
	LastID   uint32            `json:"lastId"` // session ids are never used again
	Tunables map[string]string `json:"tunables,omitempty"`
	Sessions []savedSession    `json:"sessions,omitempty"`
}

type savedSession struct {
	ID      uint32        `json:"id"`
	ISID    []byte        `json:"isid"`
	Config  conf.Session  `json:"config"`
	Devices []savedDevice `json:"devices,omitempty"`
}

// savedDevice is a device that goes on existing when the daemon dies.
type savedDevice struct {
	LUN     uint64 `json:"lun"`
	Backend string `json:"backend"`
	Path    string `json:"path"`
	// Identity is the disk's, so that a device is given back to no other.
	Identity string `json:"identity"`
	Unit     string `json:"unit,omitempty"` // what its logical unit is known by
}

const (
	stateFile   = "state"
	stateFormat = "iscsid-state 1" // the first line, with the CRC-32 of what follows
	stateMax    = 64 << 20
)

// store is the file of the state.
type store struct{ dir string }

// lock keeps other daemons away from the directory for as long as this one lives.
func (s store) lock() (*os.File, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("state: %s %w", s.dir, errOthers)
		}
		return nil, fmt.Errorf("state: %s: lock: %w", s.dir, err)
	}
	return dir, nil
}

// errOthers says that another daemon has the directory.
var errOthers = errors.New("is that of another iscsid, which runs; a second one needs its own (--state)")

// load reads the state. A file that cannot be understood is set aside under
// another name, which the error tells; what is returned then has, at the most,
// the last id. Where it cannot even be set aside, kept is true: it must not be
// written over.
func (s store) load() (st state, kept bool, err error) {
	path := filepath.Join(s.dir, stateFile)
	data, err := readState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, false, nil
	}
	if err == nil {
		st, err = decodeState(data)
	}
	if err == nil {
		return st, false, nil
	}
	st = state{LastID: lastID(data)}
	aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().Unix())
	if moved := os.Rename(path, aside); moved != nil {
		return st, true, fmt.Errorf("state: %s: %w, and it cannot be set aside: %w", path, err, moved)
	}
	return st, false, fmt.Errorf("state: %s: %w; it is kept as %s, and the sessions are to be added anew", path, err, aside)
}

// readState reads the file, where nobody else can have written it.
func readState(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("not a file")
	case st.Mode&0o022 != 0, st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return nil, errors.New("others than its owner could have written it")
	}
	return io.ReadAll(io.LimitReader(f, stateMax+1))
}

// lastID finds the last id in a damaged file, so that it is not used again; 0
// where it is not found.
func lastID(damaged []byte) uint32 {
	_, after, _ := bytes.Cut(damaged, []byte(`"lastId":`))
	var id uint32
	if _, err := fmt.Sscanf(string(after[:min(len(after), 10)]), "%d", &id); err != nil {
		return 0
	}
	return id
}

func decodeState(data []byte) (st state, err error) {
	head, body, found := bytes.Cut(data, []byte("\n"))
	var sum uint32
	switch format, number, _ := strings.Cut(string(head), " crc "); {
	case len(data) > stateMax:
		return st, fmt.Errorf("the file has more than %d bytes", stateMax)
	case !found || !strings.HasPrefix(format, "iscsid-state "):
		return st, errors.New("not a state file of iscsid")
	case format != stateFormat:
		return st, fmt.Errorf("%q was written by another version; this one reads %q", format, stateFormat)
	default:
		if _, err := fmt.Sscanf(number, "%08x", &sum); err != nil || sum != checksum(body) {
			return st, errors.New("the file is damaged (its checksum is wrong)")
		}
	}
	if err := json.Unmarshal(body, &st); err != nil {
		return state{}, fmt.Errorf("the file is damaged: %w", err)
	}
	ids := map[uint32]bool{0: true}
	for _, one := range st.Sessions {
		if len(one.ISID) != 6 || ids[one.ID] || one.ID > st.LastID {
			return state{}, errors.New("the file is damaged: a session has no proper id")
		}
		ids[one.ID] = true
	}
	return st, nil
}

// encode puts a state into the form of the file, in the memory of the last one.
// Its sessions are encoded already.
func (st state) encode(file []byte, sessions [][]byte) ([]byte, error) {
	head, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	file = fmt.Appendf(file[:0], "%s crc %08x\n", stateFormat, 0)
	begin := len(file)
	file = append(file, head...)
	for i, one := range sessions {
		if i == 0 {
			file = append(file[:len(file)-1], `,"sessions":[`...)
		} else {
			file = append(file, ',')
		}
		file = append(file, one...)
	}
	if len(sessions) > 0 {
		file = append(file, "]}"...)
	}
	if len(file) > stateMax {
		return nil, fmt.Errorf("state: %d bytes are more than %d", len(file), stateMax)
	}
	copy(file, fmt.Sprintf("%s crc %08x\n", stateFormat, checksum(file[begin:])))
	return file, nil
}

// write replaces the file: whole, or not at all, and for good.
func (s store) write(file []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	f, err := os.CreateTemp(s.dir, stateFile+".new-") // with mode 0600
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer os.Remove(f.Name()) // is gone where all went well
	_, err = f.Write(file)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, stateFile))
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); !errors.Is(err, unix.EINVAL) { // of file systems that have no need of it
		return err
	}
	return nil
}

// bootID names this boot of the machine, or "" where that cannot be known.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func checksum(body []byte) uint32 { return crc32.ChecksumIEEE(body) }
