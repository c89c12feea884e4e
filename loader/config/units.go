package config

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

const (
	kibibyte Bytes = 1 << 10
	mebibyte Bytes = 1 << 20
	gibibyte Bytes = 1 << 30
	tebibyte Bytes = 1 << 40
)

// Bytes is a size. In the file and on flags it is a plain number of bytes or a
// number with a unit: b, k, kb, kib, m, mb, mib, g, gb, gib, t, tb, tib, in any
// case. Multipliers are always 1024, as in other tools that feed training.
type Bytes int64

// ParseBytes reads a size. Errors name the text and what is accepted.
func ParseBytes(text string) (Bytes, error) {
	trimmed := strings.TrimSpace(text)
	split := strings.IndexFunc(trimmed, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if split < 0 {
		split = len(trimmed)
	}
	multiplier, ok := multiplierOf(strings.TrimSpace(trimmed[split:]))
	if !ok || split == 0 {
		return 0, fmt.Errorf("%q is no size: write a number of bytes, or one with a unit such as 64mb or 1GiB", text)
	}
	if whole, err := strconv.ParseInt(trimmed[:split], 10, 64); err == nil {
		if whole > math.MaxInt64/int64(multiplier) {
			return 0, fmt.Errorf("%q is larger than the largest size, 8 EiB", text)
		}
		return Bytes(whole) * multiplier, nil
	}
	number, err := strconv.ParseFloat(trimmed[:split], 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no size: %q is no number", text, trimmed[:split])
	}
	if number *= float64(multiplier); number >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is larger than the largest size, 8 EiB", text)
	}
	return Bytes(number), nil
}

func multiplierOf(unit string) (Bytes, bool) {
	switch strings.ToLower(unit) {
	case "", "b":
		return 1, true
	case "k", "kb", "kib":
		return kibibyte, true
	case "m", "mb", "mib":
		return mebibyte, true
	case "g", "gb", "gib":
		return gibibyte, true
	case "t", "tb", "tib":
		return tebibyte, true
	}
	return 0, false
}

// String writes the size so that ParseBytes reads it back exactly.
func (b Bytes) String() string {
	for _, unit := range []struct {
		size Bytes
		name string
	}{{tebibyte, "TiB"}, {gibibyte, "GiB"}, {mebibyte, "MiB"}, {kibibyte, "KiB"}} {
		if b != 0 && b%unit.size == 0 {
			return strconv.FormatInt(int64(b/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Set and Type make *Bytes a flag value.
func (b *Bytes) Set(text string) error {
	parsed, err := ParseBytes(text)
	if err != nil {
		return err
	}
	*b = parsed
	return nil
}

// Type names the value in help texts.
func (*Bytes) Type() string { return "size" }

// UnmarshalYAML reads a number or a string; the error carries its line.
func (b *Bytes) UnmarshalYAML(node ast.Node) error {
	var text string
	switch value := node.(type) {
	case *ast.IntegerNode:
		text = value.GetToken().Value
	case *ast.StringNode:
		text = value.Value
	default:
		return &yaml.SyntaxError{
			Message: "a size is a number of bytes, or a string such as 64mb or 1GiB",
			Token:   node.GetToken(),
		}
	}
	parsed, err := ParseBytes(text)
	if err != nil {
		return &yaml.SyntaxError{Message: err.Error(), Token: node.GetToken()}
	}
	*b = parsed
	return nil
}

// MarshalYAML writes the size with its unit.
func (b Bytes) MarshalYAML() ([]byte, error) { return []byte(b.String()), nil }

// Secret is a password or token. Printing, logging or encoding it shows only
// whether there is one; Reveal gives the text.
type Secret struct{ text string }

const hidden = "[hidden]"

// NewSecret hides text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the secret itself, for handing to what needs it.
func (s Secret) Reveal() string { return s.text }

// IsEmpty tells whether there is no secret.
func (s Secret) IsEmpty() bool { return s.text == "" }

// String hides the secret.
func (s Secret) String() string {
	if s.IsEmpty() {
		return ""
	}
	return hidden
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
