package main

import (
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"slices"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// pictures are the image formats whose headers can be read. A prefix's '?' stands
// for any byte.
var pictures = []struct {
	format string
	prefix string
	config func(io.Reader) (image.Config, error)
	names  []string
}{
	{"jpeg", "\xff\xd8\xff", jpeg.DecodeConfig, []string{"jpg", "jpeg"}},
	{"png", "\x89PNG\r\n\x1a\n", png.DecodeConfig, []string{"png"}},
	{"gif", "GIF8?a", gif.DecodeConfig, []string{"gif"}},
	{"webp", "RIFF????WEBP", webp.DecodeConfig, []string{"webp"}},
	{"bmp", "BM????\x00\x00\x00\x00", bmp.DecodeConfig, []string{"bmp"}},
	{"tiff", "II*\x00", tiff.DecodeConfig, []string{"tif", "tiff"}},
	{"tiff", "MM\x00*", tiff.DecodeConfig, nil},
}

// image reads an image's dimensions; pixels are never decoded. It reports whether
// the content begins like an image.
func (l *look) image(head []byte, content *io.SectionReader) bool {
	for _, p := range pictures {
		if !beginsLike(head, p.prefix) {
			continue
		}
		config, err := p.config(io.NewSectionReader(content, 0, content.Size()))
		if err != nil {
			l.bytes(head, content.Size())
			l.Problem = "begins like " + p.format + ", but its header cannot be read: " + err.Error()
			return true
		}
		l.Kind, l.Format, l.Width, l.Height = kindImage, p.format, config.Width, config.Height
		return true
	}
	return false
}

func beginsLike(head []byte, prefix string) bool {
	if len(head) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if prefix[i] != '?' && prefix[i] != head[i] {
			return false
		}
	}
	return true
}

func isImageName(extension string) bool {
	for _, p := range pictures {
		if slices.Contains(p.names, extension) {
			return true
		}
	}
	return false
}
