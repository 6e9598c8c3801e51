package conf

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// secretFile begins the value of a secret that stands in a file of its own.
const secretFile = "file:"

// ReadSecretFile returns the CHAP secret in the file (or pipe) at path, without
// the line break at its end. The warning, if any, is that others can read it.
func ReadSecretFile(path string) (secret, warning string, err error) {
	data, warning, err := readFile(path, maxSecret+2, fs.ModeNamedPipe)
	if err != nil {
		return "", "", fmt.Errorf("unable to read secret file %s: %w", path, err)
	}
	secret = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case secret == "":
		return "", warning, fmt.Errorf("secret file %s is empty", path)
	case strings.Contains(secret, "\n"):
		return "", warning, fmt.Errorf("secret file %s has more than one line", path)
	}
	return secret, warning, nil
}

var errRelativeSecret = errors.New(`"file:" must be followed by an absolute path`)

// secretOf returns the secret that a value of chapSecret stands for.
func (r *reader) secretOf(value string) (string, error) {
	path, isFile := strings.CutPrefix(value, secretFile)
	if !isFile {
		return value, nil
	}
	if !strings.HasPrefix(path, "/") {
		return "", errRelativeSecret
	}
	if secret, ok := r.secrets[path]; ok {
		return secret, nil
	}
	secret, warning, err := ReadSecretFile(path)
	if warning != "" {
		r.file.Warnings = append(r.file.Warnings, warning)
	}
	if err == nil {
		r.secrets[path] = secret
	}
	return secret, err
}
