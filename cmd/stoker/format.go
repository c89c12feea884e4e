package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// table writes rows of cells in columns. The first row is the heading.
func table(out io.Writer, rows [][]string) error {
	writer := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(writer, strings.TrimRight(strings.Join(row, "\t"), " ")); err != nil {
			return err
		}
	}
	return writer.Flush()
}

// humanBytes writes a size with three significant digits: 1.46 GiB.
func humanBytes(bytes int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, unit := float64(bytes), 0
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return strconv.FormatInt(bytes, 10) + " B"
	}
	decimals := 2
	switch {
	case value >= 99.95:
		decimals = 0
	case value >= 9.995:
		decimals = 1
	}
	return strconv.FormatFloat(value, 'f', decimals, 64) + " " + units[unit]
}

// grouped writes a number with a comma before every third digit.
func grouped(number int64) string {
	digits := strconv.FormatInt(number, 10)
	sign := ""
	if number < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// counted writes a number with its noun: "1 file", "2 files".
func counted(number int64, one, many string) string {
	if number == 1 {
		return "1 " + one
	}
	return grouped(number) + " " + many
}

// humanSeconds writes a duration that counts stalls: 950 ms, 12.5 s, 3m20s.
func humanSeconds(seconds float64) string {
	switch {
	case seconds < 1:
		return strconv.FormatFloat(seconds*1e3, 'f', 0, 64) + " ms"
	case seconds < 60:
		return strconv.FormatFloat(seconds, 'f', 1, 64) + " s"
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

// printable quotes text that holds anything but printable characters: names of
// files and datasets come from outside and must not steer a terminal.
func printable(text string) string {
	if utf8.ValidString(text) && strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return text
	}
	return strconv.Quote(text)
}
