package imports

// topLevel lists the folders that the root may hold.
var topLevel = []string{
	"cmd", "loader", "cufile", "backend", "prefetch", "shm", "bench",
	"python", "docs", "deploy", "internal", ".ci",
}

// room is one row of the table of who may import whom among our own packages.
//
// A pattern is a package path below Module; "x/..." means x and all below it. The
// most exact row that matches a package is its row. A package may always import
// what its own row's pattern covers, and internal/invariants.
type room struct {
	pattern string
	// imports are patterns of what the room may import.
	imports []string
	// tests are patterns of what its _test.go files may import besides.
	tests  []string
	reason string
}

// testHelpers may be imported by every test file.
var testHelpers = []string{"internal/...", "backend/backendtest"}

var (
	stores = []string{
		"backend/object/...", "backend/seekable/...", "backend/flash/...", "backend/tier/...", "backend/peer/...", "backend/erasure/...",
		"backend/cluster/...", "backend/volume/...", "backend/gateway/...",
	}
	belowLoader = append([]string{
		"backend", "cufile/...", "shm/...", "prefetch", "prefetch/trace/...",
		"loader/order/...", "loader/config/...", "loader/dataset/...", "loader/gpu/...", "loader/api/...",
	}, stores...)
	loaderAndBelow = append([]string{"loader"}, belowLoader...)
)

var rooms = []room{
	{pattern: "backend", reason: "the contract of the stores is ground floor: it imports none of ours"},
	{pattern: "cufile/...", reason: "cufile is ground floor: it imports none of ours"},
	{pattern: "shm/...", reason: "shm is ground floor: it imports none of ours"},
	{pattern: "loader/order/...", reason: "an order is a pure function on numbers: it imports none of ours"},
	{pattern: "loader/config/...", reason: "the configuration is ground floor: it imports none of ours"},

	{pattern: "backend/backendtest/...", imports: []string{"backend"}, reason: "the conformance suite sees only the contract"},
	{pattern: "backend/object/...", imports: []string{"backend"}, reason: "a store sees only the contract"},
	{pattern: "backend/seekable/...", imports: []string{"backend"}, tests: []string{"backend/object"}, reason: "a decorator sees only the contract"},
	{pattern: "backend/flash/...", imports: []string{"backend"}, reason: "a store sees only the contract"},
	{pattern: "backend/tier/...", imports: []string{"backend"}, reason: "a decorator sees only the contract"},
	{pattern: "backend/erasure/...", imports: []string{"backend"}, reason: "a decorator sees only the contract"},
	{pattern: "backend/cluster/...", imports: []string{"backend"}, reason: "a store sees only the contract"},
	{pattern: "backend/volume/...", imports: []string{"backend"}, reason: "a store sees only the contract"},
	{pattern: "backend/gateway/...", imports: []string{"backend"}, reason: "a front door sees only the contract"},
	{pattern: "backend/peer/...", imports: []string{"backend", "backend/cluster"}, reason: "peers see the contract, and the cluster map to find each other"},

	{pattern: "prefetch/...", imports: []string{"backend"}, reason: "prefetch decides; it uses the contract's value types and declares the order that it needs itself"},
	{pattern: "loader/dataset/...", imports: []string{"backend"}, tests: []string{"backend/object"}, reason: "a format reads headers through the contract, and nothing else"},
	{pattern: "loader/dataset/tar/...", imports: []string{"backend", "backend/seekable", "loader/dataset"}, tests: []string{"backend/object", "loader/dataset/internal/..."}, reason: "tar reads headers through the contract; compressed archives it writes in the form that backend/seekable serves"},
	{pattern: "loader/dataset/formats/...", imports: []string{"backend", "loader/dataset/..."}, tests: []string{"backend/object"}, reason: "formats calls the formats by name"},
	{pattern: "loader/gpu/...", imports: []string{"cufile/...", "shm/...", "backend"}, reason: "the GPU process has slabs and direct reads, no sessions"},
	{pattern: "loader/api/...", imports: []string{"loader/config/..."}, reason: "the API declares the small interface that it serves"},
	{pattern: "loader", imports: belowLoader, reason: "loader is where all of the rooms below it meet; it knows no command and no benchmark"},

	{pattern: "bench/...", imports: append([]string{"prefetch/sim/..."}, loaderAndBelow...), reason: "benchmarks see loader and below, and the simulator; no command"},
	{pattern: "cmd/stokerd", imports: loaderAndBelow, reason: "the daemon sees loader and below; only cmd/stoker imports bench"},
	{pattern: "cmd/stoker", imports: append([]string{"bench/...", "prefetch/sim/..."}, loaderAndBelow...), reason: "the command line sees loader and below, bench, and the simulator"},
	{pattern: "internal/...", reason: "internal holds invariants and helpers that know nothing of the rooms"},
}

// dependency names the only rooms that may import a module of somebody else's.
type dependency struct {
	// module is an import path; everything below it is meant too.
	module  string
	rooms   []string
	reason  string
	inTests bool // whether every room's _test.go files may import it as well
}

var dependencies = []dependency{
	{module: "C", rooms: []string{"cufile/..."}, reason: "one package speaks to C, so all others build and run without a C compiler"},
	{module: "github.com/valyala/fasthttp", rooms: []string{"loader/api/...", "backend/peer/...", "backend/gateway/s3/..."}, reason: "fasthttp reuses request buffers; few packages should have to know"},
	{module: "go.etcd.io/etcd", rooms: []string{"backend/cluster/..."}, reason: "a node alone runs without etcd; backend/cluster hides it"},
	{module: "github.com/klauspost/reedsolomon", rooms: []string{"backend/erasure/..."}, reason: "backend/erasure is named for what it hides"},
	{module: "github.com/aws/aws-sdk-go-v2", rooms: []string{"backend/object/..."}, reason: "credentials of an origin belong to backend/object"},
	{module: "github.com/minio/minio-go", rooms: []string{"backend/object/..."}, reason: "credentials of an origin belong to backend/object"},
	{module: "github.com/NVIDIA/go-nvml", rooms: []string{"cufile/inventory/..."}, reason: "it links unresolved symbols by lazy binding"},
	{module: "github.com/ianlancetaylor/cgosymbolizer", rooms: []string{"cmd/stokerd"}, reason: "it changes the whole process; only the daemon's wiring may link it"},
	{module: "github.com/grafana/pyroscope-go", rooms: []string{"cmd/stokerd"}, reason: "it profiles the whole process; only the daemon's wiring may start it"},
	{module: "github.com/prometheus/client_golang", rooms: []string{"loader/api/..."}, reason: "a mechanism fills a documented struct; only loader/api exports metrics"},
	{module: "github.com/spf13/cobra", rooms: []string{"cmd/..."}, reason: "flags belong to the commands"},
	{module: "github.com/klauspost/compress", rooms: []string{"backend/seekable/...", "loader/dataset/tar/...", "backend/volume/..."}, reason: "compressed bytes are an archive's or a volume's; everything above sees plain ones"},
	{module: "github.com/ulikunitz/xz", rooms: []string{"loader/dataset/tar/..."}, reason: "only archives come as xz"},
	{module: "charm.land/bubbletea", rooms: []string{"cmd/stoker"}, reason: "only `stoker top` draws"},
	{module: "github.com/charmbracelet", rooms: []string{"cmd/stoker"}, reason: "only `stoker top` draws"},
	{module: "github.com/schollz/progressbar", rooms: []string{"cmd/stoker"}, reason: "progress is shown by commands"},
	{module: "golang.org/x/image", rooms: []string{"cmd/stoker"}, reason: "only preview looks at pictures, and at their headers only"},
	{module: "github.com/goccy/go-yaml", rooms: []string{"loader/config/..."}, reason: "loader/config is the one reader of YAML"},
	{module: "github.com/getkin/kin-openapi", inTests: true, rooms: []string{"internal/..."}, reason: "a test library has no place in a program"},
	{module: "pgregory.net/rapid", inTests: true, rooms: []string{"backend/backendtest/..."}, reason: "a test library has no place in a program"},
	{module: "go.uber.org/goleak", inTests: true, rooms: []string{"internal/...", "backend/backendtest/..."}, reason: "a test library has no place in a program"},
	{module: "testing", inTests: true, rooms: []string{"internal/...", "backend/backendtest/..."}, reason: "a test library has no place in a program"},
}

// pythonPackage is where the Python rules below apply: the package that users
// import. The demo, the tests and the benchmark's consumers are programs.
const pythonPackage = "python/stoker"

// pythonDependencies are dependencies as above whose rooms are file names.
var pythonDependencies = []dependency{
	{module: "torch", rooms: []string{"dataset.py", "_arrays.py", "_cuda.py"}, reason: "numpy alone must be enough to use Stoker; torch is imported where DataLoader's base class is needed, and late where tensors are made"},
}
