package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"iscsictl/target"
)

func TestParseLUN(t *testing.T) {
	got, err := parseLUN("size=64m,block=4096,lun=7,file=/x/y,thin,ro,wce", 0)
	want := target.LUN{Number: 7, Size: 64 << 20, BlockSize: 4096, File: "/x/y", Thin: true, ReadOnly: true, WriteCache: true}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if got, err := parseLUN("null", 3); err != nil || !got.Null || got.Number != 3 || got.Size == 0 {
		t.Errorf("null: %+v, %v", got, err)
	}
	for _, text := range []string{"", "size=x", "blocks=512", "block=", "lun=a", "size=1m,,thin"} {
		if _, err := parseLUN(text, 0); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// TestRun starts the whole, waits for the ready file, and stops it.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready")
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(`{"portals": [{"address": "127.0.0.1:0", "iser": true}], "targets": [{"name": "iqn.2024-01.example:c", "luns": [{"size": "1m"}]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var stdout, stderr bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- newApp(&stdout, &stderr).RunContext(ctx, []string{
			"iscsitarget", "--iser", "127.0.0.1:0,7", "-portal", "127.0.0.1:0,5", "--portal", "127.0.0.1:0", "--ready-file", ready,
			"--target", "iqn.2024-01.example:a", "--lun", "size=1m", "--lun", "null,ro",
			"--target", "iqn.2024-01.example:b", "--lun", "size=2m,thin", "--config", config,
		})
	}()
	for {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(ready)
	portals := strings.Fields(string(b))
	if err != nil || len(portals) != 4 {
		t.Fatalf("ready file %q, %v", b, err)
	}
	want := "iscsitarget: for tests and demonstration only; do not keep data here that you need\n" +
		"portal " + portals[0] + ",5\nportal " + portals[1] + ",1\n" +
		"portal " + portals[2] + ",1 (iSER)\nportal " + portals[3] + ",7 (iSER)\n" +
		"target iqn.2024-01.example:c\n  LUN 0: memory, 1m, blocks of 512 bytes\n" +
		"target iqn.2024-01.example:a\n  LUN 0: memory, 1m, blocks of 512 bytes\n" +
		"  LUN 1: null, 1t, blocks of 512 bytes, read-only\n" +
		"target iqn.2024-01.example:b\n  LUN 0: memory, 2m, blocks of 512 bytes, thin\n"
	if diff := cmp.Diff(want, stdout.String()); diff != "" {
		t.Error(diff)
	}
}

func TestRefused(t *testing.T) {
	for _, args := range []string{
		"", "--lun size=1m", "--target iqn.2024-01.example:a --lun size=1", "--config /nonexistent",
		"--target iqn.2024-01.example:a --portal x", "--target iqn.2024-01.example:a --iser x", "--target iqn.2024-01.example:a --iser 192.0.2.1:0", "--target iqn.2024-01.example:a --portal 127.0.0.1:0,x",
		"--target iqn.2024-01.example:a word", "--colour red",
	} {
		var out bytes.Buffer
		err := newApp(&out, &out).RunContext(t.Context(), append([]string{"iscsitarget", "--portal", "127.0.0.1:0"}, strings.Fields(args)...))
		if err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
