package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"iscsictl/conf"
)

// answerTime is how long a client waits for a reply that the daemon gives at once.
const answerTime = 30 * time.Second

// Client is a connection to the daemon. It is for one goroutine at a time. After
// an error that is not an *Error the connection is of no more use.
type Client struct {
	conn   net.Conn
	in     *bufio.Reader
	agreed helloReply
}

// Dial connects to the daemon and agrees on a version with it. The error is, as
// errors.Is tells, ErrNotRunning where nobody listens, and os.ErrPermission where
// the caller may not call.
func Dial(path string) (*Client, error) {
	conn, err := net.DialTimeout("unix", path, answerTime)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	case err != nil:
		return nil, err
	}
	c := &Client{conn: conn, in: bufio.NewReader(conn)}
	r, err := c.call(context.Background(), answerTime, &request{Hello: &helloRequest{Min: MinVersion, Max: MaxVersion}})
	switch {
	case err != nil:
	case r.Hello == nil:
		err = fmt.Errorf("%s: not iscsid's control socket", path)
	case r.Hello.Version < MinVersion || r.Hello.Version > MaxVersion:
		err = Errorf(syscall.EPROTONOSUPPORT, "iscsid chose version %d of the control protocol", r.Hello.Version)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.agreed = *r.Hello
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// DaemonVersion returns the daemon's own version.
func (c *Client) DaemonVersion() string { return c.agreed.Daemon }

// Add adds a session and returns its id. See Handler for this and the following.
func (c *Client) Add(s conf.Session) (uint32, error) {
	r, err := c.call(context.Background(), answerTime, &request{Add: configOf(s)})
	if err != nil {
		return 0, err
	}
	if r.ID == nil {
		return 0, errors.New("iscsid's reply has no session id")
	}
	return *r.ID, nil
}

// Modify changes a session.
func (c *Client) Modify(id uint32, m Modification) error {
	_, err := c.call(context.Background(), answerTime, &request{Modify: modifyRequestOf(id, m)})
	return err
}

// Remove removes sessions and returns their ids. It waits for as long as it takes,
// since devices are taken away from the host.
func (c *Client) Remove(s Selection) ([]uint32, error) {
	r, err := c.call(context.Background(), 0, &request{Remove: &s})
	if err != nil {
		return nil, err
	}
	return r.Removed, nil
}

// List returns all sessions.
func (c *Client) List() ([]Session, error) {
	r, err := c.call(context.Background(), answerTime, &request{List: &struct{}{}})
	if err != nil {
		return nil, err
	}
	return r.Sessions, nil
}

// Rescan looks for changed LUNs.
func (c *Client) Rescan(ctx context.Context, s Selection) error {
	_, err := c.call(ctx, 0, &request{Rescan: &s})
	return err
}

// Discover asks a portal for its targets. The secrets of what it returns are those
// of s: the daemon does not send them back.
func (c *Client) Discover(ctx context.Context, s conf.Session) ([]conf.Session, error) {
	r, err := c.call(ctx, 0, &request{Discover: configOf(s)})
	if err != nil {
		return nil, err
	}
	found := make([]conf.Session, len(r.Entries))
	for i, entry := range r.Entries {
		if entry == nil {
			return nil, errors.New("iscsid's reply has an empty entry")
		}
		if found[i], err = entry.session(); err != nil {
			return nil, err
		}
		found[i].Secret, found[i].MutualSecret = s.Secret, s.MutualSecret
	}
	return found, nil
}

// Tunables returns all tunables.
func (c *Client) Tunables() ([]Tunable, error) {
	r, err := c.call(context.Background(), answerTime, &request{Tunables: &struct{}{}})
	if err != nil {
		return nil, err
	}
	return r.Tunables, nil
}

// SetTunable sets a tunable.
func (c *Client) SetTunable(name, value string) error {
	_, err := c.call(context.Background(), answerTime, &request{SetTunable: &setTunableValue{Name: name, Value: value}})
	return err
}

// call sends a request and reads its reply. It waits for within, or for ever where
// that is 0, and no longer than ctx.
func (c *Client) call(ctx context.Context, within time.Duration, req *request) (*reply, error) {
	line, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	if len(line) >= MaxRequest {
		return nil, Errorf(syscall.EMSGSIZE, "the request is longer than %d bytes", MaxRequest)
	}
	deadline := time.Time{}
	if within > 0 {
		deadline = time.Now().Add(within)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// The server may have refused the connection before it read anything: its
	// reply says why, where the write just fails.
	_, writeErr := c.conn.Write(append(line, '\n'))
	answer, err := readLine(c.in, MaxReply)
	switch {
	case err == nil:
		return decodeReply(answer)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("iscsid did not answer within %v", within)
	case writeErr != nil:
		err = writeErr
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("iscsid closed the connection: %w", err)
}

// decodeReply reads a reply's line. Members that this side does not know are passed over.
func decodeReply(line []byte) (*reply, error) {
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("iscsid's reply is not understood: %w", err)
	}
	if r.Error != nil {
		return nil, r.Error.received()
	}
	return &r, nil
}
