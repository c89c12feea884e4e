package seekable

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/stokerio/stoker/backend"
)

var _ backend.Prober = (*Store)(nil)

// Resident implements backend.Prober. Bytes of a seekable object count where all of their
// compressed frame is in the page cache, which takes decompressing them at most. Other
// objects are the decorated store's.
func (s *Store) Resident(ctx context.Context, o *backend.Object, off, n int64) (bytes int64, known bool, err error) {
	if !isSeekable(o) {
		origin, ok := backend.As[backend.Prober](s.origin)
		if !ok {
			return 0, false, nil
		}
		return origin.Resident(ctx, o, off, n)
	}
	if err := s.enter("look at"); err != nil {
		return 0, false, err
	}
	defer s.leave()
	g := s.takeGather()
	defer s.putGather(g)
	f, err := s.acquireRange(ctx, "look at", o, off, n, g)
	if err != nil {
		return 0, false, err
	}
	bytes, known = s.resident(f, off, off+n)
	s.releaseFile(f, false)
	return bytes, known, nil
}

// resident counts the bytes of [from, to) whose frames are in the page cache.
func (s *Store) resident(f *openFile, from, to int64) (bytes int64, known bool) {
	for i := from / f.frameBytes; i*f.frameBytes < to; i++ {
		all, known := s.isCached(f.fd, f.offsets[i], f.offsets[i+1])
		if !known {
			return 0, false
		}
		if all {
			bytes += min(to, (i+1)*f.frameBytes) - max(from, i*f.frameBytes)
		}
	}
	return bytes, true
}

// isCached asks cachestat(2) whether all pages of [from, to) are in the page cache. known
// is false where the kernel (before Linux 6.5) or the file system does not tell.
func (s *Store) isCached(fd int, from, to int64) (all, known bool) {
	asked, pages := unix.CachestatRange{Off: uint64(from), Len: uint64(to - from)}, unix.Cachestat_t{}
	if to == from {
		return true, true
	}
	if s.system.Cachestat(fd, &asked, &pages) != 0 {
		return false, false
	}
	page := int64(os.Getpagesize())
	return pages.Cache >= uint64((to-1)/page-from/page+1), true
}
