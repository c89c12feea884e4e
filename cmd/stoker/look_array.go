package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
)

// npyHeaderMax bounds the header of an .npy file; numpy itself refuses more than
// 10,000 bytes where it must not trust the file.
const npyHeaderMax = 10_000

// The dictionary of an .npy header, as numpy writes it (NEP 1).
var (
	npyMagic = "\x93NUMPY"
	npyDescr = regexp.MustCompile(`'descr':\s*'([<>|=]?)([a-zA-Z])([0-9]{1,6})(?:\[[^']*\])?'`)
	npyShape = regexp.MustCompile(`'shape':\s*\(([0-9, ]*)\)`)
)

// array reads the header of an .npy file.
func (l *look) array(content *io.SectionReader) {
	header, offset, err := npyHeader(content)
	if err == nil {
		err = l.readNPY(header, content.Size()-offset)
	}
	if err == nil {
		l.Kind = kindArray
		return
	}
	head := make([]byte, min(content.Size(), sniffBytes))
	if n, _ := content.ReadAt(head, 0); n < len(head) {
		head = head[:n]
	}
	l.DType, l.Shape = "", nil
	l.bytes(head, content.Size())
	l.Problem = "not an .npy array: " + err.Error()
}

// npyHeader returns the header's text and where the values begin.
func npyHeader(content *io.SectionReader) (text string, offset int64, err error) {
	head := make([]byte, 12)
	n, _ := content.ReadAt(head, 0)
	if head = head[:n]; len(head) < 12 || string(head[:6]) != npyMagic {
		return "", 0, fmt.Errorf("it does not begin with NUMPY")
	}
	length := int64(binary.LittleEndian.Uint16(head[8:]))
	offset = 10
	if head[6] >= 2 {
		length = int64(binary.LittleEndian.Uint32(head[8:]))
		offset = 12
	}
	if head[6] < 1 || head[6] > 3 {
		return "", 0, fmt.Errorf("version %d.%d is unknown", head[6], head[7])
	}
	if length > min(npyHeaderMax, content.Size()-offset) {
		return "", 0, fmt.Errorf("its header of %d bytes does not fit", length)
	}
	b := make([]byte, length)
	if n, err := content.ReadAt(b, offset); n < len(b) {
		return "", 0, err
	}
	return string(b), offset + length, nil
}

// readNPY takes type and shape out of a header, and holds them against the bytes
// that follow it.
func (l *look) readNPY(header string, bytes int64) error {
	shape := npyShape.FindStringSubmatch(header)
	if shape == nil {
		return fmt.Errorf("its header names no shape")
	}
	values := uint64(1)
	l.Shape = []int64{}
	for _, word := range strings.FieldsFunc(shape[1], func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.ParseInt(word, 10, 64)
		high, low := bits.Mul64(values, uint64(n))
		if err != nil || high != 0 {
			return fmt.Errorf("its shape (%s) is impossible", shape[1])
		}
		l.Shape, values = append(l.Shape, n), low
	}
	descr := npyDescr.FindStringSubmatch(header)
	if descr == nil {
		l.DType = "structured"
		return nil
	}
	l.DType = npyType(descr[1], descr[2], descr[3])
	size, err := strconv.ParseUint(descr[3], 10, 64)
	if err != nil {
		return err
	}
	if descr[2] == "U" {
		size *= 4
	}
	if high, low := bits.Mul64(values, size); high != 0 || low != uint64(bytes) {
		l.Problem = fmt.Sprintf("%d bytes follow the header, which needs %s of %s", bytes, shapeWords(l.Shape), l.DType)
	}
	return nil
}

// npyType names a type as numpy's str(dtype) does, where that has a name.
func npyType(order, kind, size string) string {
	names := map[string]string{
		"b1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
		"f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128",
	}
	name, ok := names[kind+size]
	if !ok || order == ">" {
		return order + kind + size
	}
	return name
}
