package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"golang.org/x/sys/unix"
)

// fileBytesMax bounds the YAML file; the annotated example has about 4 KiB.
const fileBytesMax = 1 << 20

// secretBytesMax bounds a file that holds a password or token.
const secretBytesMax = 4096

// Load returns the defaults overlaid with the file at path and completed from
// env. An empty path means no file. An unknown or doubled field, or a value of
// the wrong kind, is an error that names file, line and column. Load does not
// validate: flags may still change the result.
func Load(path string, env Environment) (Config, error) {
	cfg := Default()
	if path != "" {
		text, err := readBounded(path, fileBytesMax)
		if err != nil {
			return Config{}, fmt.Errorf("read configuration %q: %w", path, err)
		}
		if err := decode(text, &cfg); err != nil {
			return Config{}, fmt.Errorf("configuration %q: %w", path, err)
		}
	}
	cfg.Complete(env)
	return cfg, nil
}

// decode overlays cfg with the YAML document in text.
func decode(text []byte, cfg *Config) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return positioned(err)
	}
	documents := 0
	for _, document := range file.Docs {
		if document.Body == nil {
			continue
		}
		if documents++; documents > 1 {
			return errors.New("more than one YAML document: keep one, or join them")
		}
		if err := decodeDocument(document.Body, cfg); err != nil {
			return err
		}
	}
	return nil
}

func decodeDocument(body ast.Node, cfg *Config) error {
	switch node := body.(type) {
	case *ast.NullNode, *ast.CommentGroupNode:
		return nil
	case *ast.MappingNode:
		node.Values = withoutNulls(node.Values, reflect.TypeFor[Config]())
		if len(node.Values) == 0 {
			return nil
		}
	}
	return positioned(yaml.NodeToValue(body, cfg, yaml.Strict()))
}

// withoutNulls drops the fields of t that have no value, at all depths:
// "session:" above lines that are all commented out means the defaults, not a
// zero Session. Names that t lacks are kept, so that they are still refused.
func withoutNulls(values []*ast.MappingValueNode, t reflect.Type) []*ast.MappingValueNode {
	kept := values[:0]
	for _, value := range values {
		field, known := fieldNamed(t, value.Key.String())
		switch inner := value.Value.(type) {
		case *ast.NullNode:
			if known {
				continue
			}
		case *ast.MappingNode:
			if known && field.Kind() == reflect.Struct {
				inner.Values = withoutNulls(inner.Values, field)
			}
		}
		kept = append(kept, value)
	}
	return kept
}

// fieldNamed finds the type of t's field with this name in the file.
func fieldNamed(t reflect.Type, name string) (reflect.Type, bool) {
	for i := range t.NumField() {
		if field := t.Field(i); field.Tag.Get("yaml") == name {
			return field.Type, true
		}
	}
	return nil, false
}

// positioned rewrites the YAML library's errors as "line L, column C: message",
// which log lines can hold; its own form draws the source over several lines.
func positioned(err error) error {
	var located yaml.Error
	if !errors.As(err, &located) || located.GetToken() == nil || located.GetToken().Position == nil {
		return err
	}
	position := located.GetToken().Position
	message := strings.TrimSpace(located.GetMessage())
	return fmt.Errorf("line %d, column %d: %s", position.Line, position.Column, message)
}

// ReadSecret reads a password or token from the first line of a file. A file
// that others may read is refused. An empty path is no secret and no error.
func ReadSecret(path string) (Secret, error) {
	if path == "" {
		return Secret{}, nil
	}
	file, err := openRegular(path)
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return Secret{}, fmt.Errorf("secret file %q has mode %04o: others may read it; run chmod 600 on it", path, mode)
	}
	text, err := readAtMost(file, secretBytesMax)
	if err != nil {
		return Secret{}, fmt.Errorf("read secret %q: %w", path, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSpace(line)
	if line == "" {
		return Secret{}, fmt.Errorf("secret file %q is empty: write the secret on its first line", path)
	}
	return NewSecret(line), nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	file, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readAtMost(file, limit)
}

// openRegular opens a file without waiting: a pipe or device given by mistake is
// an error instead of a daemon that hangs before its first log line.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is no regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func readAtMost(file io.Reader, limit int64) ([]byte, error) {
	var text bytes.Buffer
	read, err := io.Copy(&text, io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if read > limit {
		return nil, fmt.Errorf("larger than %d bytes", limit)
	}
	return text.Bytes(), nil
}
