package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend/flash"
)

// FlashWriteRow is one way to write, over all repeats, until everything is durable.
type FlashWriteRow struct {
	By        string `json:"by"`
	MBPS      Spread `json:"mb_per_s"`
	CPUSPerGB Spread `json:"cpu_s_per_gb"`
	Share     Spread `json:"share_of_bare_loop"` // of the quicker bare loop, repeat by repeat

	rates, cpu []float64
}

// FlashPutRow is how long puts of 1 MiB take, so many at once.
type FlashPutRow struct {
	Parallel int     `json:"parallel"`
	Puts     int     `json:"puts"`
	P50Ms    float64 `json:"p50_ms"`
	P99Ms    float64 `json:"p99_ms"`
	MBPS     float64 `json:"mb_per_s"`
}

// FlashAmplificationRow is what this process had the kernel write while chunks of one size
// were filled, half of them into the room of others.
type FlashAmplificationRow struct {
	ChunkBytes   int64   `json:"chunk_bytes"`
	PayloadBytes int64   `json:"payload_bytes"`
	WrittenBytes int64   `json:"written_bytes"` // /proc/self/io: pages that became dirty, without the file system's own
	Ratio        float64 `json:"ratio"`
}

// Ways to write.
const (
	byBareDirect   = "bare, O_DIRECT"
	byBareBuffered = "bare, page cache"
	byFill         = "fill"
	byPut          = "put, 4 at once"
)

const flashWriteFolder = "writes"

func (b *flashBench) writeParts() int { return 4*b.o.sizes.repeats + 2 + 2 }

// write measures writes: those of the store beside loops that write as large pieces to a
// file with its room and make each durable.
func (b *flashBench) write(ctx context.Context) error {
	if err := b.measureWrites(ctx); err != nil {
		return err
	}
	for _, parallel := range []int{1, 16} {
		b.part(fmt.Sprintf("puts, %d at once", parallel))
		if err := b.puts(ctx, parallel); err != nil {
			return err
		}
	}
	var worst FlashAmplificationRow
	for _, size := range []int64{1 << 20, 8 << 20} {
		b.part(fmt.Sprintf("what chunks of %d MiB write", size>>20))
		row, err := b.amplification(ctx, size)
		if err != nil {
			return err
		}
		b.report.Amplification = append(b.report.Amplification, row)
		if row.Ratio > worst.Ratio {
			worst = row
		}
	}
	b.figure("write_amplification", only(worst.Ratio), fmt.Sprintf("chunks of %d MiB", worst.ChunkBytes>>20))
	return nil
}

// measureWrites lets the ways to write take turns.
func (b *flashBench) measureWrites(ctx context.Context) error {
	rows := []FlashWriteRow{{By: byBareDirect}, {By: byBareBuffered}, {By: byFill}, {By: byPut}}
	for repeat := range b.o.sizes.repeats {
		for n := range rows {
			row := &rows[(n+repeat)%len(rows)]
			b.part("write: " + row.By)
			cpu := cpuNs()
			rate, err := b.writeBy(ctx, row.By)
			if err != nil {
				return fmt.Errorf("%s: %w", row.By, err)
			}
			row.rates = append(row.rates, rate/1e6)
			row.cpu = append(row.cpu, float64(cpuNs()-cpu)/float64(b.o.sizes.writeBytes))
		}
	}
	bare := rows[0].rates
	if spreadOf(rows[1].rates).Median > spreadOf(bare).Median {
		bare = rows[1].rates
	}
	for i := range rows {
		rows[i].MBPS, rows[i].CPUSPerGB, rows[i].Share = spreadOf(rows[i].rates), spreadOf(rows[i].cpu), spreadOf(ratios(rows[i].rates, bare))
	}
	b.report.Writes = rows
	b.figure("fill_device", spreadOf(bare), "")
	b.figure("fill_share", rows[2].Share, "")
	b.figure("put_share", rows[3].Share, "")
	return nil
}

// writeBy writes once; it returns bytes/s.
func (b *flashBench) writeBy(ctx context.Context, by string) (float64, error) {
	switch by {
	case byBareDirect:
		return b.bareWrites(ctx, true)
	case byBareBuffered:
		return b.bareWrites(ctx, false)
	case byPut:
		return b.storeWrites(ctx, 4, func(store *flash.Store, i int64, content []byte) error {
			binary.LittleEndian.PutUint64(content[8:], uint64(i)) // else it is there already
			_, err := store.Put(ctx, content)
			return err
		})
	}
	chunks := chunksOf("shards", 8<<20, b.o.sizes.writeBytes)
	return b.storeWrites(ctx, 1, func(store *flash.Store, i int64, content []byte) error {
		return store.Fill(ctx, chunks[i], content[:chunks[i].Size])
	})
}

// bareWrites writes a new file piece by piece, each durable before the next.
func (b *flashBench) bareWrites(ctx context.Context, direct bool) (_ float64, err error) {
	d, err := openDevice(DeviceOptions{Dir: b.dir, FileBytes: b.o.sizes.writeBytes, SyncBytes: min(8<<20, b.o.sizes.writeBytes)})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if !direct && d.refused == "" {
		buffered, err := os.OpenFile(d.path, os.O_RDWR, 0)
		if err != nil {
			return 0, err
		}
		if d.file, err = buffered, d.file.Close(); err != nil {
			return 0, err
		}
	}
	if err := unix.Fdatasync(int(d.file.Fd())); err != nil { // what making its room wrote
		return 0, err
	}
	row, err := d.write(ctx)
	return row.MBPS * 1e6, err
}

// storeWrites stores chunks of 8 MiB in a new store, so many at once. Closing it, which
// makes them durable, counts; making its first segment does not.
func (b *flashBench) storeWrites(ctx context.Context, parallel int, write func(store *flash.Store, i int64, content []byte) error) (_ float64, err error) {
	chunks := max(1, b.o.sizes.writeBytes/(8<<20))
	defer func() { err = errors.Join(err, b.remove(flashWriteFolder)) }()
	store, err := b.openEmpty(ctx, chunks*(8<<20)/b.o.sizes.spanBytes+1)
	if err != nil {
		return 0, err
	}
	content, free, err := mapped(int64(parallel) * (8 << 20))
	if err != nil {
		return 0, errors.Join(err, store.Close())
	}
	fillWords(content, deviceSalt, 1<<40)
	loop := turns{flights: parallel, count: chunks}
	began := time.Now()
	done, err := loop.run(ctx, func(flight int, turn int64) (int64, error) {
		return 8 << 20, write(store, turn, content[flight<<23:][:8<<20])
	})
	err = errors.Join(err, store.Close(), free())
	done.took = time.Since(began)
	return done.perSecond(), err
}

// openEmpty opens a new store with so many spans, whose first segment is there: one span
// more has the chunk that made it.
func (b *flashBench) openEmpty(ctx context.Context, spans int64) (*flash.Store, error) {
	store, err := b.open(ctx, flashWriteFolder, b.spansFor(spans+1), flash.Options{})
	if err != nil {
		return nil, err
	}
	if _, err := store.Put(ctx, []byte("the first chunk makes the first segment")); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// puts measures how long each put takes.
func (b *flashBench) puts(ctx context.Context, parallel int) (err error) {
	count := b.o.sizes.puts
	defer func() { err = errors.Join(err, b.remove(flashWriteFolder)) }()
	store, err := b.openEmpty(ctx, int64(count)<<20/b.o.sizes.spanBytes+2) // and one that is not full
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	took := make([]float64, count)
	group, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for flight := range parallel {
		group.Go(func() error {
			content := make([]byte, 1<<20)
			fillWords(content, deviceSalt, 1<<40)
			for i := flight; i < count && ctx.Err() == nil; i += parallel {
				binary.LittleEndian.PutUint64(content, uint64(i))
				asked := time.Now()
				if _, err := store.Put(ctx, content); err != nil {
					return err
				}
				took[i] = float64(time.Since(asked)) / 1e6
			}
			return context.Cause(ctx)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	row := FlashPutRow{Parallel: parallel, Puts: count, P50Ms: percentile(took, 0.5), P99Ms: percentile(took, 0.99)}
	row.MBPS = float64(count<<20) / 1e6 / time.Since(began).Seconds()
	b.report.Puts = append(b.report.Puts, row)
	if parallel == 1 {
		b.figure("put_p50_ms", only(row.P50Ms), "")
		b.figure("put_p99_ms", only(row.P99Ms), "")
	}
	return nil
}

// amplification fills a store twice over, and asks what that wrote.
func (b *flashBench) amplification(ctx context.Context, size int64) (row FlashAmplificationRow, err error) {
	chunks := chunksOf("shards", size, b.o.sizes.writeBytes)
	defer func() { err = errors.Join(err, b.remove(flashWriteFolder)) }()
	store, err := b.openEmpty(ctx, max(1, b.o.sizes.writeBytes/2/b.o.sizes.spanBytes))
	if err != nil {
		return row, err
	}
	content, free, err := mapped(size)
	if err != nil {
		return row, errors.Join(err, store.Close())
	}
	fillWords(content, deviceSalt, 1<<40)
	before, err := writtenBytes()
	for i := 0; i < len(chunks) && err == nil; i++ {
		err = store.Fill(ctx, chunks[i], content)
	}
	if err = errors.Join(err, store.Close(), free()); err != nil {
		return row, err
	}
	after, err := writtenBytes()
	row = FlashAmplificationRow{ChunkBytes: size, PayloadBytes: size * int64(len(chunks)), WrittenBytes: after - before}
	row.Ratio = float64(row.WrittenBytes) / float64(row.PayloadBytes)
	return row, err
}

// writtenBytes is what this process has written so far: pages that it made dirty.
func writtenBytes() (int64, error) {
	content, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, fmt.Errorf("ask what this process writes: %w", err)
	}
	for line := range strings.Lines(string(content)) {
		if number, found := strings.CutPrefix(line, "write_bytes: "); found {
			return strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		}
	}
	return 0, errors.New("/proc/self/io does not say what this process writes: the kernel lacks CONFIG_TASK_IO_ACCOUNTING")
}
