package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The kinds of what a part can be.
const (
	kindAbsent  = "absent"  // the sample lacks it
	kindText    = "text"    // Text is its beginning
	kindJSON    = "json"    // JSON is all of it, or Text its beginning
	kindInteger = "integer" // Values has one
	kindNumbers = "numbers" // Values are the first, of DType and Shape
	kindArray   = "array"   // numpy's .npy of DType and Shape
	kindImage   = "image"   // Format, Width and Height
	kindPickle  = "pickle"  // never opened; Hex is its beginning
	kindBytes   = "bytes"   // Format is a guess, Hex the beginning
)

// Bounds of what is read and shown of a part, which may be of any size and from
// anybody.
const (
	sniffBytes = 4 << 10
	jsonBytes  = 64 << 10
	jsonDepth  = 32 // indenting costs the square of the depth
	hexBytes   = 16
	lineRunes  = 100
	textLines  = 3
	jsonLines  = 12
)

// look is what one part of a sample looks like.
type look struct {
	Name    string          `json:"name"`
	Bytes   int64           `json:"bytes"`
	Kind    string          `json:"kind"`
	Format  string          `json:"format,omitempty"` // image: "jpeg"; bytes: a media type
	Width   int             `json:"width,omitempty"`
	Height  int             `json:"height,omitempty"`
	DType   string          `json:"dtype,omitempty"`
	Shape   []int64         `json:"shape,omitempty"`
	Values  []int64         `json:"values,omitempty"`
	Class   string          `json:"class,omitempty"` // label: the class of that number
	Text    string          `json:"text,omitempty"`
	JSON    json.RawMessage `json:"json,omitempty"`
	Hex     string          `json:"hex,omitempty"`
	Cut     bool            `json:"cut,omitempty"`     // there is more than is shown
	Problem string          `json:"problem,omitempty"` // why it is not what its name says
}

// at looks at content by the last extension of its name, as decoding in Python
// goes by it, else by how it begins.
func (l *look) at(name string, content *io.SectionReader) {
	head := make([]byte, min(content.Size(), sniffBytes))
	if n, err := content.ReadAt(head, 0); err != nil && n < len(head) {
		l.Kind, l.Problem = kindBytes, err.Error()
		return
	}
	extension := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	switch extension {
	case "txt", "text", "transcript":
		l.text(head, content.Size())
	case "cls", "cls2", "index", "inx", "id":
		l.integer(head, content.Size())
	case "json", "jsn":
		l.json(content)
	case "npy":
		l.array(content)
	case "pkl", "pickle", "pyd", "pth", "pt":
		l.bytes(head, content.Size())
		l.Kind, l.Format = kindPickle, ""
	default:
		l.sniff(extension, head, content)
	}
}

// sniff goes by the content.
func (l *look) sniff(extension string, head []byte, content *io.SectionReader) {
	switch {
	case l.image(head, content):
	case isText(head):
		l.text(head, content.Size())
	default:
		l.bytes(head, content.Size())
	}
	if l.Kind != kindImage && isImageName(extension) && l.Problem == "" {
		l.Problem = "not an image that this program knows"
	}
}

func (l *look) text(head []byte, size int64) {
	whole := wholeRunes(head)
	if !utf8.Valid(whole) {
		l.bytes(head, size)
		l.Format, l.Problem = "", "not UTF-8 text"
		return
	}
	l.Kind, l.Text = kindText, string(whole)
	l.Cut = int64(len(head)) < size
}

func (l *look) integer(head []byte, size int64) {
	value, err := strconv.ParseInt(string(bytes.TrimSpace(head)), 10, 64)
	if err != nil || size > int64(len(head)) {
		l.text(head, size)
		l.Problem = "not an integer in decimal digits"
		return
	}
	l.Kind, l.Values = kindInteger, []int64{value}
}

func (l *look) json(content *io.SectionReader) {
	text := make([]byte, min(content.Size(), jsonBytes))
	if n, err := content.ReadAt(text, 0); err != nil && n < len(text) {
		l.Kind, l.Problem = kindBytes, err.Error()
		return
	}
	if content.Size() > jsonBytes {
		l.text(text, content.Size())
		l.Kind = kindJSON
		return
	}
	if err := validJSON(text); err != nil {
		l.text(text, content.Size())
		l.Problem = "not JSON: " + err.Error()
		return
	}
	l.Kind, l.JSON = kindJSON, bytes.TrimSpace(text)
}

func validJSON(text []byte) error {
	var value json.RawMessage
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	if !utf8.Valid(text) {
		return fmt.Errorf("not UTF-8")
	}
	return nil
}

func (l *look) bytes(head []byte, size int64) {
	l.Kind, l.Format = kindBytes, http.DetectContentType(head)
	l.Hex = hex.EncodeToString(head[:min(len(head), hexBytes)])
	l.Cut = size > hexBytes
}

// isText tells text from other bytes: UTF-8 without control characters. The last
// rune may be cut.
func isText(head []byte) bool {
	whole := wholeRunes(head)
	if !utf8.Valid(whole) {
		return false
	}
	return bytes.IndexFunc(whole, func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\n\r\f", r) }) < 0
}

// wholeRunes leaves out a last rune that is cut off.
func wholeRunes(b []byte) []byte {
	for back := 1; back <= min(len(b), utf8.UTFMax-1); back++ {
		if last := b[len(b)-back:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				return b[:len(b)-back]
			}
			break
		}
	}
	return b
}

// rows are the part's lines of a table: name, size, kind, and what is in it.
func (l *look) rows() [][]string {
	lines := l.lines()
	if l.Problem != "" {
		lines = append(lines, "("+visible(l.Problem)+")")
	}
	if len(lines) == 0 {
		lines = []string{""}
	}
	size := humanBytes(l.Bytes)
	if l.Kind == kindAbsent {
		size = "-"
	}
	rows := [][]string{{"", printable(l.Name), size, l.kindWords(), lines[0]}}
	for _, line := range lines[1:] {
		rows = append(rows, []string{"", "", "", "", line})
	}
	return rows
}

func (l *look) kindWords() string {
	switch l.Kind {
	case kindImage:
		return l.Format
	case kindArray:
		return "npy"
	case kindNumbers:
		return l.DType
	}
	return l.Kind
}

// lines are what is shown of the content, safe for a terminal.
func (l *look) lines() []string {
	switch l.Kind {
	case kindAbsent:
		return []string{"not in this sample"}
	case kindText:
		return firstLines(l.Text, textLines, l.Cut)
	case kindJSON:
		return l.jsonLines()
	case kindInteger, kindNumbers:
		return []string{l.numbers()}
	case kindArray:
		return []string{l.DType + " " + shapeWords(l.Shape)}
	case kindImage:
		return []string{fmt.Sprintf("%d × %d", l.Width, l.Height)}
	}
	return []string{l.hexWords()}
}

func (l *look) jsonLines() []string {
	if l.JSON == nil {
		return firstLines(l.Text, textLines, l.Cut)
	}
	if depthOf(l.JSON) > jsonDepth {
		return firstLines(string(l.JSON), jsonLines, false)
	}
	var short, pretty bytes.Buffer
	if err := errors.Join(json.Compact(&short, l.JSON), json.Indent(&pretty, l.JSON, "", "  ")); err != nil {
		panic(fmt.Sprintf("indent JSON that was parsed: %v", err))
	}
	if short.Len() <= lineRunes {
		return firstLines(short.String(), 1, false)
	}
	return firstLines(pretty.String(), jsonLines, false)
}

// depthOf is how deep valid JSON nests.
func depthOf(text []byte) int {
	depth, most, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
			most = max(most, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return most
}

func (l *look) numbers() string {
	words := make([]string, len(l.Values))
	for i, value := range l.Values {
		words[i] = strconv.FormatInt(value, 10)
	}
	text := strings.Join(words, " ")
	if l.Cut {
		text += " ..."
	}
	if l.Class != "" {
		text += " (" + printable(l.Class) + ")"
	}
	return text
}

func (l *look) hexWords() string {
	var text strings.Builder
	for i := 0; i+2 <= len(l.Hex); i += 2 {
		text.WriteString(l.Hex[i:i+2] + " ")
	}
	if l.Cut {
		text.WriteString("... ")
	}
	if l.Format != "" && l.Format != "application/octet-stream" {
		text.WriteString("(" + visible(l.Format) + ")")
	}
	return strings.TrimSpace(text.String())
}

func shapeWords(shape []int64) string {
	words := make([]string, len(shape))
	for i, n := range shape {
		words[i] = strconv.FormatInt(n, 10)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// firstLines are the beginning of a text, safe for a terminal. cut says that there
// is more than the text has.
func firstLines(text string, most int, cut bool) []string {
	all := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	var lines []string
	for _, line := range all[:min(len(all), most)] {
		line = strings.TrimSuffix(line, "\r")
		short := firstRunes(line, lineRunes)
		shown := visible(short)
		if len(short) < len(line) {
			shown += "..."
		}
		lines = append(lines, shown)
	}
	if len(all) > most || cut {
		lines = append(lines, "...")
	}
	return lines
}

// firstRunes is at most so many runes of a text.
func firstRunes(text string, most int) string {
	count := 0
	for i := range text {
		if count++; count > most {
			return text[:i]
		}
	}
	return text
}

// visible writes everything that is no printable character as an escape, so that a
// text cannot steer a terminal.
func visible(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, text[i])
		case unicode.IsPrint(r):
			out.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			out.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return out.String()
}
