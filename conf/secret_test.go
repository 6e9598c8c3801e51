package conf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPermissions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "iscsi.conf")
	for mode, want := range map[os.FileMode][]string{
		0o600: nil,
		0o640: nil,
		0o644: {path + " is world-readable"},
		0o666: {path + " is world-writable"},
		0o777: {path + " is world-writable"},
		0o701: {path + " is world-executable"},
	} {
		write(t, path, withMinimal(""), mode)
		f, err := Parse(path)
		if err != nil || len(f.Sessions) != 1 {
			t.Errorf("%o: %d sessions, %v", mode, len(f.Sessions), err)
		}
		if diff := cmp.Diff(want, f.Warnings); diff != "" {
			t.Errorf("%o: (-want +got)\n%s", mode, diff)
		}
	}
	write(t, path, "n {", 0o644)
	if f, err := Parse(path); err == nil || len(f.Warnings) != 1 {
		t.Errorf("with a mistake: %q, %v", f.Warnings, err)
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write(t, path("good"), "geheim\n", 0o600)
	write(t, path("dos"), "geheim\r\n", 0o640)
	write(t, path("open"), "geheim", 0o604)
	write(t, path("blanks"), " ge \"heim\\ \n", 0o600)
	write(t, path("empty"), "\n", 0o600)
	write(t, path("lines"), "a\nb\n", 0o600)
	write(t, path("long"), strings.Repeat("x", 1025), 0o600)
	write(t, path("huge"), strings.Repeat("x", 2000), 0o600)
	write(t, path("binary"), "a\x00b", 0o600)
	for _, c := range []struct {
		name, secret, warning, err string
	}{
		{name: "good", secret: "geheim"},
		{name: "dos", secret: "geheim"},
		{name: "open", secret: "geheim", warning: path("open") + " is world-readable"},
		{name: "blanks", secret: ` ge "heim\ `},
		{name: "empty", err: "secret file " + path("empty") + " is empty"},
		{name: "lines", err: "secret file " + path("lines") + " has more than one line"},
		{name: "long", err: `overlong tgtChapSecret for target "n"; max length is 1024 bytes`},
		{name: "huge", err: "unable to read secret file " + path("huge") + ": larger than 1026 bytes"},
		{name: "binary", err: `invalid tgtChapSecret for target "n"; must be UTF-8 without control characters`},
		{name: "missing", err: "unable to read secret file " + path("missing") + ": no such file or directory"},
		{name: ".", err: "unable to read secret file " + path(".") + ": is a directory"},
	} {
		src := fmt.Sprintf("chapIName = u; chapSecret = p; tgtChapName = v; tgtChapSecret = \"file:%s\"", path(c.name))
		f, err := ParseBytes("x", []byte(withMinimal(src)))
		if c.err != "" {
			if all := mistakes(t, err); len(all) != 1 || !strings.HasSuffix(all[0], c.err) {
				t.Errorf("%s: %q\nwant %s", c.name, all, c.err)
			}
			continue
		}
		if err != nil || f.Sessions[0].MutualSecret != c.secret {
			t.Errorf("%s: %+v, %v", c.name, f.Sessions, err)
		}
		if got := strings.Join(f.Warnings, " "); got != c.warning {
			t.Errorf("%s: warnings %q, want %q", c.name, got, c.warning)
		}
	}
	if _, _, err := ReadSecretFile(os.DevNull); err == nil {
		t.Error("a device is read as a secret")
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	_, err := ParseBytes("x", []byte(withMinimal("chapIName = u; chapSecret = geheim; tgtChapName = v; tgtChapSecret = \"geheim\x01\"; Enable = x")))
	if err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("%v", err)
	}
}
