package object_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/backend/object"
)

func cpuNow() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return ts.Nano()
}

func TestTmpRatio(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const files, size = 10485, 100_000
	root := t.TempDir()
	for i := range files {
		os.WriteFile(filepath.Join(root, fmt.Sprintf("%05d.jpg", i)), make([]byte, size), 0o600)
	}
	order := rand.New(rand.NewPCG(1, 3)).Perm(files)
	buf := make([]byte, benchBatch*size)
	type route struct {
		name string
		run  func(n int)
		ns   []float64
	}
	routes := []*route{{name: "bare", run: func(n int) {
		for i := range benchBatch {
			name := filepath.Join(root, fmt.Sprintf("%05d.jpg", order[(n*benchBatch+i)%files]))
			fd, _ := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
			syscall.Pread(fd, buf[i*size:(i+1)*size], 0)
			syscall.Close(fd)
		}
	}}}
	for _, open := range []int{-1, 1024, 16384} {
		dir := openDir(t, root, object.Options{OpenFiles: open})
		objects := list(t, dir)
		byName := map[string]int{}
		for i := range objects {
			byName[string(objects[i].Name)] = i
		}
		reads := make([]backend.Read, benchBatch)
		var report backend.GatherReport
		routes = append(routes, &route{name: fmt.Sprint(open), run: func(n int) {
			for i := range reads {
				o := &objects[byName[fmt.Sprintf("%05d.jpg", order[(n*benchBatch+i)%files])]]
				reads[i] = backend.Read{Chunk: backend.Chunk{Object: o, Size: size}, P: buf[i*size : (i+1)*size]}
			}
			if err := dir.Gather(context.Background(), reads, &report); err != nil {
				t.Fatal(err)
			}
		}})
	}
	for n := range 600 {
		for j, r := range routes {
			start := cpuNow()
			for k := range 4 {
				r.run((n+j*10)*4 + k)
			}
			r.ns = append(r.ns, float64(cpuNow()-start)/4/benchBatch)
		}
	}
	for _, r := range routes {
		slices.Sort(r.ns)
		t.Logf("%s median %.0f ns/file p10 %.0f  %.3f", r.name, r.ns[len(r.ns)/2], r.ns[len(r.ns)/10], routes[0].ns[300]/r.ns[300])
	}
}

func TestTmpRows(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const rows, size = 1 << 18, 4096
	root := t.TempDir()
	name := filepath.Join(root, "train.bin")
	os.WriteFile(name, make([]byte, rows*size), 0o600)
	order := rand.New(rand.NewPCG(1, 3)).Perm(rows - 1)
	buf := make([]byte, benchBatch*size)
	type route struct {
		name string
		run  func(n int)
		ns   []float64
	}
	fd, _ := syscall.Open(name, syscall.O_RDONLY, 0)
	routes := []*route{{name: "bare", run: func(n int) {
		for i := range benchBatch {
			off := int64(order[(n*benchBatch+i)%len(order)])*size + 2
			syscall.Pread(fd, buf[i*size:(i+1)*size], off)
		}
	}}}
	for _, open := range []int{-1, 1024} {
		dir := openDir(t, root, object.Options{OpenFiles: open})
		objects := list(t, dir)
		reads := make([]backend.Read, benchBatch)
		var report backend.GatherReport
		routes = append(routes, &route{name: fmt.Sprint(open), run: func(n int) {
			for i := range reads {
				off := int64(order[(n*benchBatch+i)%len(order)])*size + 2
				start := off / backend.MaxChunkBytes * backend.MaxChunkBytes
				length := min(objects[0].Version.Size-start, backend.MaxChunkBytes+size)
				reads[i] = backend.Read{Chunk: backend.Chunk{Object: &objects[0], Start: start, Size: length}, Offset: off - start, P: buf[i*size : (i+1)*size]}
			}
			if err := dir.Gather(context.Background(), reads, &report); err != nil {
				t.Fatal(err)
			}
		}})
	}
	for n := range 2000 {
		for j, r := range routes {
			start := cpuNow()
			for k := range 10 {
				r.run((n+j*100)*10 + k)
			}
			r.ns = append(r.ns, float64(cpuNow()-start)/10/benchBatch)
		}
	}
	for _, r := range routes {
		slices.Sort(r.ns)
		t.Logf("%s median %.0f ns/row p10 %.0f  %.3f", r.name, r.ns[1000], r.ns[200], routes[0].ns[1000]/r.ns[1000])
	}
}
