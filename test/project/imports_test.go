package project

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A room is a row of the table in docs/architecture.md.
type room struct {
	folder  string // with its slash, as all of these are
	imports []string
	without []string // packages of Go's library
}

// TestRooms compares the imports of every package with the table of rooms.
func TestRooms(t *testing.T) {
	rooms := readRooms(t)
	libraries := readLibraries(t)
	used := map[string]bool{}
	for _, f := range sources(t) {
		home := roomOf(rooms, f.folder)
		if home == nil {
			t.Errorf("%s: %s is in no row of the table of rooms in docs/architecture.md", f.path, f.folder)
			continue
		}
		used[home.folder] = true
		for _, imported := range f.imports {
			if err := allowed(rooms, libraries, home, imported); err != nil {
				t.Errorf("%s: %v", f.path, err)
			}
		}
	}
	for _, r := range rooms {
		if !used[r.folder] {
			t.Errorf("docs/architecture.md: the table of rooms has %s, where no package is", r.folder)
		}
	}
}

// TestRoomsNoticesViolations makes sure that the wall stands.
func TestRoomsNoticesViolations(t *testing.T) {
	rooms, libraries := readRooms(t), readLibraries(t)
	for _, c := range []struct {
		from, imported string
		ok             bool
	}{
		{"session/", "iscsictl/transport", true},
		{"session/", "iscsictl/transport/tcp", false},
		{"session/", "iscsictl/disk", false},
		{"iscsi/", "encoding/binary", true},
		{"iscsi/", "net", false},
		{"iscsi/", "net/netip", true},
		{"scsi/", "iscsictl/iscsi", false},
		{"parser/", "github.com/alecthomas/participle/v2/lexer", true},
		{"conf/", "github.com/alecthomas/participle/v2", false},
		{"conf/", "example.com/unheard/of", false},
		{"cmd/iscsictl/", "iscsictl/session", false},
		{"test/report/", "iscsictl/session", true},
	} {
		home := roomOf(rooms, c.from)
		if home == nil {
			t.Errorf("%s is in no room", c.from)
			continue
		}
		if err := allowed(rooms, libraries, home, c.imported); (err == nil) != c.ok {
			t.Errorf("%s imports %s: %v, want ok = %v", c.from, c.imported, err, c.ok)
		}
	}
}

// TestLibraries compares the table of libraries with what go.mod requires directly.
func TestLibraries(t *testing.T) {
	libraries := readLibraries(t)
	for line := range strings.Lines(readFile(t, "go.mod")) {
		fields := strings.Fields(strings.TrimPrefix(line, "require"))
		if len(fields) != 2 || !strings.HasPrefix(fields[1], "v") {
			continue // not a requirement, or one that is marked as indirect
		}
		if _, ok := libraries[fields[0]]; !ok {
			t.Errorf("go.mod requires %s, which docs/architecture.md does not justify", fields[0])
		}
	}
	for module := range libraries {
		if !strings.Contains(readFile(t, "go.mod"), module+" v") {
			t.Errorf("docs/architecture.md justifies %s, which go.mod does not require", module)
		}
	}
}

// allowed says why a package of a room may not import another, or returns nil.
func allowed(rooms []room, libraries map[string][]string, home *room, imported string) error {
	if inner, ours := strings.CutPrefix(imported, "iscsictl/"); ours {
		to := roomOf(rooms, inner+"/")
		switch {
		case home.folder == "test/", to != nil && to.folder == home.folder:
			return nil
		case to == nil:
			return fmt.Errorf("imports %s, which is in no room", imported)
		case !slices.Contains(home.imports, to.folder):
			return fmt.Errorf("%s may not import %s (see docs/architecture.md)", home.folder, to.folder)
		}
		return nil
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		if slices.Contains(home.without, imported) {
			return fmt.Errorf("%s does without %s (see docs/architecture.md)", home.folder, imported)
		}
		return nil
	}
	for module, users := range libraries {
		if imported != module && !strings.HasPrefix(imported, module+"/") {
			continue
		}
		for _, user := range users {
			if strings.HasPrefix(home.folder, user) && (home.folder == user || user == "cmd/") {
				return nil
			}
		}
		return fmt.Errorf("%s may not use %s (see docs/architecture.md)", home.folder, module)
	}
	return fmt.Errorf("imports %s, which docs/architecture.md does not justify", imported)
}

// roomOf returns the room with the longest folder that begins the given one, or nil.
func roomOf(rooms []room, folder string) *room {
	var best *room
	for i, r := range rooms {
		if strings.HasPrefix(folder, r.folder) && (best == nil || len(r.folder) > len(best.folder)) {
			best = &rooms[i]
		}
	}
	return best
}

func readRooms(t *testing.T) []room {
	t.Helper()
	var rooms []room
	for _, cells := range table(t, "docs/architecture.md", "Folder", 4) {
		rooms = append(rooms, room{folder: words(cells[0])[0], imports: words(cells[2]), without: words(cells[3])})
	}
	for _, r := range rooms {
		for _, to := range r.imports {
			if !slices.ContainsFunc(rooms, func(x room) bool { return x.folder == to }) {
				t.Fatalf("docs/architecture.md: %s may import %s, which is no room", r.folder, to)
			}
		}
	}
	return rooms
}

func readLibraries(t *testing.T) map[string][]string {
	t.Helper()
	libraries := map[string][]string{}
	for _, cells := range table(t, "docs/architecture.md", "Module", 3) {
		libraries[words(cells[0])[0]] = words(cells[1])
	}
	return libraries
}

// source is a Go file that is not a test.
type source struct {
	path, folder string
	imports      []string
}

// sources returns all Go files of this module but the tests, whatever their
// build constraints.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			_, err := os.Stat(filepath.Join(name, "go.mod"))
			if name != root && (err == nil || base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		s := source{path: rel, folder: path.Dir(filepath.ToSlash(rel)) + "/"}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, imported)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
