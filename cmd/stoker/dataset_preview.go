package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/order"
	"github.com/stokerio/stoker/shm"
)

// presentColumn is the column that says which parts a sample has, bit by bit.
const presentColumn = "__present__"

// previewOptions are the flags of `stoker dataset preview`.
type previewOptions struct {
	count     int64
	index     int64
	shuffle   bool
	seed      uint64
	parts     []string
	blockSize int64

	blockSizeGiven bool // even for a format that has none, which the daemon refuses
}

func (a *app) datasetPreviewCommand() *cobra.Command {
	var options previewOptions
	command := &cobra.Command{
		Use:   "preview NAME",
		Short: "Look at a few samples",
		Long: `Look at a few samples: number, key, file, and each part with its size and what is
in it: text, JSON, numbers, the type and shape of an array, the dimensions of an
image (from its header), else bytes in hexadecimal. Nothing is unpickled.

With --shuffle the samples are those that a job with shuffle=True and the same
seed reads first.`,
		Example: `  stoker dataset preview pets
  stoker dataset preview coco -n 10 --shuffle --part 'jpg;png' --part txt
  stoker dataset preview text --block-size 64 --index 1000`,
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeDataset,
		RunE: func(command *cobra.Command, args []string) error {
			return a.preview(command.Context(), args[0], options)
		},
	}
	flags := command.Flags()
	flags.Int64VarP(&options.count, "number", "n", 3, "how many samples")
	flags.Int64Var(&options.index, "index", 0, "the first sample; with --shuffle, its position")
	flags.BoolVar(&options.shuffle, "shuffle", false, "take them in shuffled order")
	flags.Uint64Var(&options.seed, "seed", 0, "seed of --shuffle")
	flags.StringArrayVar(&options.parts, "part", nil, "show only this part of tar samples; 'jpg;png' is the first that there is (may be repeated)")
	flags.Int64Var(&options.blockSize, "block-size", 16, "tokens a sample, for token datasets")
	a.must(command.RegisterFlagCompletionFunc("part", a.completePart))
	a.addJSON(command)
	return command
}

// previewed is one sample: an element of `stoker dataset preview --json`.
type previewed struct {
	Sample int64  `json:"sample"`
	Key    string `json:"key"`
	File   string `json:"file"`
	Parts  []look `json:"parts"`
}

// preview is the answer of `stoker dataset preview --json`.
type preview struct {
	Dataset string      `json:"dataset"`
	Format  string      `json:"format"`
	Samples int64       `json:"samples"` // of the dataset
	IndexID string      `json:"index_id"`
	Shown   []previewed `json:"shown"`
	Left    int         `json:"parts_left,omitempty"` // parts that are not shown, as there are too many
}

func (a *app) preview(ctx context.Context, name string, options previewOptions) error {
	if options.count < 1 || options.index < 0 {
		return &failure{Code: "usage", What: "there is nothing to show", Remedy: "give -n 1 or more and --index 0 or more", exit: exitUsage}
	}
	daemon, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer daemon.close()
	p := previewer{options: options, request: shm.SampleRequest{Type: shm.TypeSample, Dataset: name, Select: selected(options.parts)}}
	if err := daemon.get(ctx, &p.dataset, "v1", "datasets", name); err != nil {
		return err
	}
	if p.dataset.Format == "tokens" || options.blockSizeGiven {
		p.request.BlockSize = options.blockSize
	}
	if len(options.parts) > 0 {
		p.request.Missing = "empty"
		if p.dataset.Format != "tar" {
			return &failure{Code: "usage", What: "samples of format " + p.dataset.Format + " have no parts to choose from", Where: "dataset " + name,
				Remedy: "leave --part out", exit: exitUsage}
		}
	}
	left := 0
	if len(options.parts) == 0 {
		if p.request.Select, left = firstParts(&p.dataset); left > 0 {
			p.request.Missing = "empty"
		}
	}
	if p.session, err = dialSession(ctx, daemon.directory); err != nil {
		return err
	}
	defer p.session.close()
	shown, err := p.run()
	if err != nil {
		return err
	}
	shown.Left = left
	if a.json {
		return a.writeJSON(shown)
	}
	return a.writePreview(shown, len(options.parts) > 0)
}

// selected makes columns of --part.
func selected(parts []string) []shm.SelectColumn {
	var columns []shm.SelectColumn
	for _, part := range parts {
		alternatives := strings.Split(part, ";")
		columns = append(columns, selectColumn(alternatives...))
	}
	return columns
}

// A session can have only so many columns if samples lack some of them: of more, a
// preview shows the first.
const (
	mostLackable   = 62
	partsPreviewed = 60
)

// firstParts selects the first parts of a dataset that has more than a session can
// show, and returns how many are left; otherwise it selects nothing.
func firstParts(d *api.Dataset) (columns []shm.SelectColumn, left int) {
	lacking := slices.ContainsFunc(d.Parts, func(p api.Part) bool { return p.Samples < d.Samples })
	if len(d.Parts) <= mostLackable || !lacking {
		return nil, 0
	}
	for _, part := range d.Parts[:partsPreviewed] {
		columns = append(columns, selectColumn(part.Name))
	}
	return columns, len(d.Parts) - partsPreviewed
}

// selectColumn is the column of the first of these parts that there is, named by the
// first. A selected column needs a name, even that of a part without one.
func selectColumn(parts ...string) shm.SelectColumn {
	name := parts[0]
	if name == "" {
		name = "(no name)"
	}
	return shm.SelectColumn{Name: name, Parts: parts}
}

// previewer fetches samples, one after the other.
type previewer struct {
	options previewOptions
	dataset api.Dataset
	session *session
	request shm.SampleRequest
}

func (p *previewer) run() (preview, error) {
	whole := preview{Dataset: p.dataset.Name, Format: p.dataset.Format, Shown: []previewed{}}
	first := int64(0)
	if !p.options.shuffle {
		first = p.options.index
	}
	// The first answer says how many samples there are, which of tokens depends on
	// the block size.
	answer, err := p.fetch(first, func(shm.SampleAnswer, io.ReaderAt) error { return nil })
	if err != nil {
		return whole, err
	}
	whole.Samples, whole.IndexID = answer.Samples, answer.IndexID
	numbers, err := p.numbers(answer.Samples)
	if err != nil {
		return whole, err
	}
	for _, number := range numbers {
		_, err := p.fetch(number, func(answer shm.SampleAnswer, memory io.ReaderAt) error {
			whole.Shown = append(whole.Shown, p.look(number, answer, memory))
			return nil
		})
		if err != nil {
			return whole, err
		}
	}
	return whole, nil
}

// numbers are the samples to show, of so many.
func (p *previewer) numbers(samples int64) ([]int64, error) {
	at := func(position int64) int64 { return position }
	if p.options.shuffle {
		shuffled, err := order.New(order.Spec{Kind: order.Global, Seed: p.options.seed, Samples: samples})
		if err != nil {
			return nil, fmt.Errorf("shuffle: %w", err)
		}
		at = shuffled.Epoch(0).At
	}
	if p.options.index >= samples {
		return nil, &failure{Code: string(api.CodeOutOfRange), What: fmt.Sprintf("position %d does not exist, the dataset has %d samples", p.options.index, samples),
			Where: "dataset " + p.dataset.Name, Remedy: "give a smaller --index", exit: exitError}
	}
	var numbers []int64
	for position := p.options.index; position < samples && int64(len(numbers)) < p.options.count; position++ {
		numbers = append(numbers, at(position))
	}
	return numbers, nil
}

// fetch asks for one sample and shows it to see, which may read its memory until it
// returns.
func (p *previewer) fetch(number int64, see func(shm.SampleAnswer, io.ReaderAt) error) (shm.SampleAnswer, error) {
	p.request.Index = number
	answer, memory, err := p.session.sample(p.request)
	if err != nil {
		return answer, err
	}
	defer memory.Close()
	if err := checkColumns(answer, memory); err != nil {
		return answer, err
	}
	return answer, see(answer, memory)
}

// checkColumns holds what an answer says against the memory that came with it.
func checkColumns(answer shm.SampleAnswer, memory *os.File) error {
	stat, err := memory.Stat()
	if err != nil {
		return fmt.Errorf("look at the sample: %w", err)
	}
	for _, c := range answer.Columns {
		if c.Offset < 0 || c.Bytes < 0 || c.Offset > stat.Size() || c.Bytes > stat.Size()-c.Offset {
			return fmt.Errorf("the daemon's answer has column %q at %d, %d bytes, in a memory of %d bytes", c.Name, c.Offset, c.Bytes, stat.Size())
		}
	}
	return nil
}

// look describes all columns of one sample.
func (p *previewer) look(number int64, answer shm.SampleAnswer, memory io.ReaderAt) previewed {
	shown := previewed{Sample: number, Key: answer.Key, File: answer.File, Parts: []look{}}
	present := int64(-1) // every bit
	if i := slices.IndexFunc(answer.Columns, func(c shm.SampleColumn) bool { return c.Name == presentColumn }); i >= 0 {
		if values := integers(answer.Columns[i], memory, 1); len(values) == 1 {
			present = values[0]
		}
	}
	for i, column := range answer.Columns {
		switch {
		case column.Name == presentColumn:
		case column.Bytes == 0 && i < 64 && present&(1<<i) == 0:
			shown.Parts = append(shown.Parts, look{Name: column.Name, Kind: kindAbsent})
		default:
			shown.Parts = append(shown.Parts, p.lookAtColumn(column, answer, memory))
		}
	}
	return shown
}

func (p *previewer) lookAtColumn(column shm.SampleColumn, answer shm.SampleAnswer, memory io.ReaderAt) look {
	l := look{Name: column.Name, Bytes: column.Bytes}
	switch {
	case column.DType != "uint8":
		l.Kind, l.DType, l.Shape = kindNumbers, column.DType, column.Shape
		l.Values = integers(column, memory, valuesShown)
		l.Cut = column.Bytes > int64(len(l.Values))*sizeOf(column.DType)
		if column.Name == "label" && len(l.Values) == 1 && l.Values[0] >= 0 && l.Values[0] < int64(len(p.dataset.Classes)) {
			l.Class = p.dataset.Classes[l.Values[0]]
		}
	default:
		name := column.Name
		if p.dataset.Format == "raw" {
			name = path.Base(answer.Key)
		}
		l.at(name, io.NewSectionReader(memory, column.Offset, column.Bytes))
	}
	return l
}

// valuesShown is how many numbers of a part are written out.
const valuesShown = 16

// sizeOf is the size of an integer type of numpy's name, 0 for any other.
func sizeOf(dtype string) int64 {
	switch dtype {
	case "int8", "uint8":
		return 1
	case "int16", "uint16":
		return 2
	case "int32", "uint32":
		return 4
	case "int64", "uint64":
		return 8
	}
	return 0
}

// integers reads the first of a column's numbers.
func integers(column shm.SampleColumn, memory io.ReaderAt, most int) []int64 {
	size := sizeOf(column.DType)
	if size == 0 {
		return nil
	}
	count := min(column.Bytes/size, int64(most))
	b := make([]byte, count*size)
	if n, err := memory.ReadAt(b, column.Offset); n < len(b) && err != nil {
		return nil
	}
	values := make([]int64, count)
	for i := range values {
		values[i] = integer(column.DType, b[int64(i)*size:])
	}
	return values
}

// integer decodes one number; a uint64 beyond int64, which no format here makes,
// wraps.
func integer(dtype string, b []byte) int64 {
	switch dtype {
	case "int8":
		return int64(int8(b[0]))
	case "uint8":
		return int64(b[0])
	case "int16":
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case "uint16":
		return int64(binary.LittleEndian.Uint16(b))
	case "int32":
		return int64(int32(binary.LittleEndian.Uint32(b)))
	case "uint32":
		return int64(binary.LittleEndian.Uint32(b))
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// writePreview shows samples to people; absent says whether parts that a sample
// lacks are worth a line.
func (a *app) writePreview(p preview, absent bool) error {
	if _, err := fmt.Fprintf(a.out, "%s: %s, %s\n", printable(p.Dataset), p.Format, counted(p.Samples, "sample", "samples")); err != nil {
		return err
	}
	if p.Left > 0 {
		fmt.Fprintf(a.out, "the first %d parts are shown; choose from %s more with --part\n", partsPreviewed, grouped(int64(p.Left)))
	}
	for i := range p.Shown {
		s := &p.Shown[i]
		where := ""
		if s.File != "" && s.File != s.Key && !strings.HasPrefix(s.Key, s.File+"[") {
			where = " in " + printable(s.File)
		}
		fmt.Fprintf(a.out, "\nsample %s: %s%s\n", grouped(s.Sample), printable(s.Key), where)
		var rows [][]string
		for j := range s.Parts {
			if s.Parts[j].Kind != kindAbsent || absent {
				rows = append(rows, s.Parts[j].rows()...)
			}
		}
		if err := table(a.out, rows); err != nil {
			return err
		}
	}
	return nil
}

// completePart asks the daemon for the parts of the dataset that is named before.
func (a *app) completePart(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list datasetList
	a.askForCompletion(command.Context(), &list, "datasets")
	var names []string
	for _, d := range list.Datasets {
		if len(args) == 0 || d.Name != args[0] {
			continue
		}
		for _, part := range d.Parts {
			names = append(names, cobra.CompletionWithDesc(part.Name, percent(part.Samples, d.Samples)+" of the samples"))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
