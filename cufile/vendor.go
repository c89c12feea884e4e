package cufile

import "os"

// library is one of the two that a vendor has.
type library int

const (
	deviceLibrary  library = 0
	storageLibrary library = 1
)

// feature is what libraries may or may not have, by their version.
type feature int

const (
	exportableMemory   feature = iota
	settableParameters         // by calls, before the storage library's driver opens
	countedReads               // statistics
	vectoredReads              // which come with a longer form of the statistics
	closableStorage            // the storage library's driver can be closed
)

// vendor is what differs between vendors beside the table of their functions: names of
// libraries, and of the functions that tell what they can do. Functions are named as
// people find them in the vendor's documents.
type vendor struct {
	libraries [2]libraryNames
	features  map[feature][]string // functions, of which one is enough
	versions  []versionStep        // the newest first
	oldest    int                  // the version of a library that has none of these
	read      string               // the function behind File.ReadAt
	enter     string               // the one before it that makes a context current
	refusals  []int                // codes of an export that a sandbox or a GPU does not let through
}

type libraryNames struct {
	name     string // for people
	places   []string
	variable string // of the environment, that names it
}

// versionStep is a function and the version that brought it, to infer that of a library
// that does not say it.
type versionStep struct {
	function string
	version  int
}

// nvidia's libraries are libcuda and libcufile; versions are those of cuFile.
var nvidia = vendor{
	libraries: [2]libraryNames{
		{"libcuda", []string{
			"libcuda.so.1",
			"/usr/local/nvidia/lib64/libcuda.so.1", // NVIDIA's containers on older runtimes
			"/usr/local/nvidia/lib/libcuda.so.1",
			"/usr/lib/wsl/lib/libcuda.so.1",
		}, DeviceLibraryVariable},
		{"libcufile", []string{
			"libcufile.so.0",
			"/usr/local/cuda/lib64/libcufile.so.0",
			"/usr/local/cuda/targets/x86_64-linux/lib/libcufile.so.0",
			"/usr/local/cuda/targets/sbsa-linux/lib/libcufile.so.0",
		}, StorageLibraryVariable},
	},
	features: map[feature][]string{
		exportableMemory:   {"cuMemCreate"},
		settableParameters: {"cuFileSetParameterBool"},
		countedReads:       {"cuFileStatsStart"},
		vectoredReads:      {"cuFileReadv"},
		closableStorage:    {"cuFileDriverClose", "cuFileDriverClose_v2"},
	},
	versions: []versionStep{
		{"cuFileStatsStart", 1150},
		{"cuFileSetParameterBool", 1140},
		{"cuFileReadAsync", 1070},
		{"cuFileDriverClose_v2", 1040},
	},
	oldest: 1000,
	read:   "cuFileRead",
	enter:  "cuCtxSetCurrent",

	refusals: []int{800, 801}, // not permitted, not supported
}

// places are the names to try for a library, in order.
func (v *vendor) places(which library, named string) []string {
	l := &v.libraries[which]
	if named == "" {
		named = os.Getenv(l.variable)
	}
	if named != "" {
		return []string{named}
	}
	return l.places
}

// has reports whether the libraries that are loaded have a feature.
func (d *Driver) has(f feature) bool {
	for _, function := range d.vendor.features[f] {
		if d.found[function] {
			return true
		}
	}
	return false
}
