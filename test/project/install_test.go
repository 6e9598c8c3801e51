package project

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// runMake runs make at the top of the tree, without building what is there.
func runMake(t *testing.T, args ...string) (string, error) {
	t.Helper()
	for _, program := range []string{"iscsictl", "iscsid"} {
		if _, err := os.Stat(filepath.Join(root, "bin", program)); err == nil {
			args = append(args, "-o", "build")
			break
		}
	}
	out, err := exec.Command("make", append([]string{"-C", root}, args...)...).CombinedOutput()
	return string(out), err
}

func mustMake(t *testing.T, args ...string) {
	t.Helper()
	if out, err := runMake(t, args...); err != nil {
		t.Fatalf("make %q: %v\n%s", args, err, out)
	}
}

// installed lists the files below a directory, each with its mode.
func installed(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			files = append(files, info.Mode().String()+" "+strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// programFiles are what any prefix has.
func programFiles(prefix string) []string {
	files := []string{
		"-rwxr-xr-x " + prefix + "/sbin/iscsictl", "-rwxr-xr-x " + prefix + "/sbin/iscsid",
		"-rw-r--r-- " + prefix + "/share/bash-completion/completions/iscsictl",
		"-rw-r--r-- " + prefix + "/share/bash-completion/completions/iscsid",
	}
	for _, page := range []string{"man4/iscsi.4", "man4/iser.4", "man5/iscsi.conf.5", "man8/iscsictl.8", "man8/iscsid.8"} {
		files = append(files, "-rw-r--r-- "+prefix+"/share/man/"+page)
	}
	return files
}

func wantFiles(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestInstallLocal makes sure that the default prefix has programs and pages alone,
// and leaves open-iscsi's files as they are.
func TestInstallLocal(t *testing.T) {
	dir := t.TempDir()
	theirs := []string{"/usr/sbin/iscsid", "/usr/sbin/iscsiadm", "/usr/lib/systemd/system/iscsid.service", "/etc/iscsi/iscsid.conf"}
	for _, name := range theirs {
		if err := os.MkdirAll(filepath.Dir(dir+name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+name, []byte("open-iscsi's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := installed(t, dir)
	mustMake(t, "install", "DESTDIR="+dir)
	wantFiles(t, "after the installation", installed(t, dir), append(programFiles("/usr/local"), before...))
	if out, err := runMake(t, "install", "DESTDIR="+dir, "PREFIX=/usr"); err == nil || !strings.Contains(out, "open-iscsi is installed there") {
		t.Errorf("over open-iscsi: %v\n%s", err, out)
	}
	mustMake(t, "uninstall", "DESTDIR="+dir)
	wantFiles(t, "after it was undone", installed(t, dir), before)
	for _, name := range theirs {
		if text, err := os.ReadFile(dir + name); string(text) != "open-iscsi's" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// TestInstallSystem makes sure that PREFIX=/usr has what belongs to the system, and
// that settings are the administrator's.
func TestInstallSystem(t *testing.T) {
	dir := t.TempDir()
	mustMake(t, "install", "DESTDIR="+dir, "PREFIX=/usr")
	want := append(programFiles("/usr"), systemFiles(t)...)
	wantFiles(t, "after the installation", installed(t, dir), want)

	settings := dir + "/etc/default/iscsictl"
	if err := os.MkdirAll(filepath.Dir(settings), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(settings, []byte("iscsictl_flags=\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustMake(t, "install", "DESTDIR="+dir, "PREFIX=/usr")
	mustMake(t, "uninstall", "DESTDIR="+dir, "PREFIX=/usr")
	wantFiles(t, "after it was undone", installed(t, dir), []string{"-rw-r--r-- /etc/default/iscsictl"})
	if text, _ := os.ReadFile(settings); string(text) != "iscsictl_flags=\n" {
		t.Errorf("settings that were changed: %q", text)
	}
}

// systemFiles are the files of init/, by their suffixes, where they are to be.
func systemFiles(t *testing.T) (files []string) {
	t.Helper()
	places := map[string]string{
		".service": "/usr/lib/systemd/system/NAME.service", ".rules": "/usr/lib/udev/rules.d/NAME.rules",
		".sysusers": "/usr/lib/sysusers.d/NAME.conf", ".tmpfiles": "/usr/lib/tmpfiles.d/NAME.conf",
		".default": "/etc/default/NAME", ".sh": "", ".bash": "",
	}
	entries, err := os.ReadDir(filepath.Join(root, "init"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		suffix := filepath.Ext(entry.Name())
		place, known := places[suffix]
		if !known {
			t.Errorf("init/%s: nothing is known of where such a file is to be", entry.Name())
		}
		if place != "" {
			files = append(files, "-rw-r--r-- "+strings.Replace(place, "NAME", strings.TrimSuffix(entry.Name(), suffix), 1))
		}
	}
	return files
}
