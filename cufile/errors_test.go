package cufile

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestErrorsSayWhatWhereWhyAndWhatNext(t *testing.T) {
	for _, test := range []struct {
		err  *Error
		want string
	}{
		{&Error{Op: "cuFileHandleRegister", Object: "/cache/a", Code: 5008},
			`cuFileHandleRegister "/cache/a": CU_FILE_IO_NOT_SUPPORTED (5008): no direct route to this file; remedy: put the cache on ext4 (data=ordered) or XFS on a local NVMe drive, uncompressed and unencrypted`},
		{&Error{Op: "cuMemCreate", Object: "slab", CUDA: 2},
			`cuMemCreate "slab": CUDA_ERROR_OUT_OF_MEMORY (2): out of memory on the device; remedy: free device memory, or ask for smaller slabs; nvidia-smi shows who holds it`},
		{&Error{Op: "cuFileBufRegister", Code: 5011, CUDA: 201},
			`cuFileBufRegister: CU_FILE_CUDA_DRIVER_ERROR (5011): the GPU driver refused: CUDA_ERROR_INVALID_CONTEXT (201): no valid context; remedy: the device was closed; open it anew`},
		{&Error{Op: "cuFileRead", Object: "f", Errno: syscall.EIO},
			`cuFileRead "f": input/output error; remedy: the drive answered an error: see dmesg and smartctl`},
		{&Error{Op: "cuFileRead", Code: 5999}, `cuFileRead: cuFile code 5999 (5999): a code that this version of Stoker does not know`},
		{&Error{Op: "cuInit", CUDA: 4242}, `cuInit: CUresult 4242 (4242)`},
		{&Error{Op: "dlopen", Object: "libcuda.so.1", Detail: "invalid ELF header"}, `dlopen "libcuda.so.1": invalid ELF header`},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func TestErrorsUnwrapToTheKernelsNumber(t *testing.T) {
	if err := error(&Error{Op: "cuFileRead", Errno: syscall.EIO}); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v is not EIO", err)
	}
	if err := error(&Error{Op: "cuFileRead", Code: 5044}); errors.Is(err, syscall.EIO) {
		t.Errorf("%v is EIO", err)
	}
}

// enumerators reads NAME = NUMBER out of abi.h.
func enumerators(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile("abi.h")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]int)
	for _, m := range regexp.MustCompile(`STOKER_(\w+) = (\d+)`).FindAllStringSubmatch(string(text), -1) {
		number, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		all[m[1]] = number
	}
	return all
}

func TestNamesOfCodesAreThoseOfTheHeader(t *testing.T) {
	storage, device := 0, 0
	for name, number := range enumerators(t) {
		switch {
		case strings.HasPrefix(name, "CU_FILE_") && number > 5000:
			storage++
			if got := StorageCodeName(number); got != name {
				t.Errorf("%d is %s, want %s", number, got, name)
			}
		case strings.HasPrefix(name, "CUDA_"):
			device++
			if got := DeviceCodeName(number); got != name {
				t.Errorf("%d is %s, want %s", number, got, name)
			}
		}
	}
	if storage != len(storageCodes) || device != len(deviceCodes)+1 {
		t.Errorf("abi.h has %d and %d codes, Go has %d and %d and success", storage, device, len(storageCodes), len(deviceCodes))
	}
	if got := StorageCodeName(0); got != "CU_FILE_SUCCESS" {
		t.Errorf("0 is %s", got)
	}
}

// The numbers of Go's constants are those of abi.h, which other tests compare with
// NVIDIA's.
func TestFlagsAreThoseOfTheHeader(t *testing.T) {
	header := enumerators(t)
	for name, ours := range map[string]int{
		"CU_FILE_LUSTRE_SUPPORTED": int(Lustre), "CU_FILE_WEKAFS_SUPPORTED": int(WekaFS), "CU_FILE_NFS_SUPPORTED": int(NFS),
		"CU_FILE_GPFS_SUPPORTED": int(GPFS), "CU_FILE_NVME_SUPPORTED": int(NVMe), "CU_FILE_NVMEOF_SUPPORTED": int(NVMeOF),
		"CU_FILE_BEEGFS_SUPPORTED": int(BeeGFS), "CU_FILE_VIRTIOFS_SUPPORTED": int(VirtioFS),
		"CUFILE_PARAM_PROPERTIES_MAX_DIRECT_IO_SIZE_KB": int(maxDirectParameter), "CUFILE_PARAM_PROPERTIES_MAX_DEVICE_PINNED_MEM_SIZE_KB": int(maxPinnedParameter),
		"CUFILE_PARAM_PROPERTIES_ALLOW_COMPAT_MODE": int(allowCompatParameter), "CUFILE_PARAM_FORCE_COMPAT_MODE": int(forceCompatParameter),
		"CUFILE_PARAM_USE_PCIP2PDMA": int(pciP2PDMAParameter), "CU_IPC_HANDLE_SIZE": ipcHandleBytes, "CUFILE_GPU_UUID_LEN": len(UUID{}),
		"CUFILE_STATS1_VECTOR_WORDS": level1VectorBytes / 8,
	} {
		if want, found := header[name]; !found || ours != want {
			t.Errorf("%s is %d, in abi.h %d (%v)", name, ours, want, found)
		}
	}
	for name, flag := range map[string]P2PFlags{
		"CUFILE_P2PDMA": FlagPCIP2PDMA, "CUFILE_NVFS": FlagNvidiaFS, "CUFILE_DMABUF": FlagDMABuf, "CUFILE_C2C": FlagC2C, "CUFILE_NVIDIA_PEERMEM": FlagPeerMemory,
	} {
		if bit, found := header[name]; !found || flag != 1<<bit {
			t.Errorf("%s is %#x, in abi.h bit %d (%v)", name, flag, bit, found)
		}
	}
	if bit := header["CU_FILE_ALLOW_COMPAT_MODE"]; !(Properties{Control: 1 << bit}).CompatAllowed() || (Properties{Control: ^uint32(1 << bit)}).CompatAllowed() {
		t.Errorf("CompatAllowed looks at another bit than %d", bit)
	}
}

// But for 5011, where CUDA's code has one.
func TestEveryStorageCodeSaysWhatToDo(t *testing.T) {
	for code := range storageCodes {
		if e := (&Error{Code: code}); e.Remedy() == "" && code != 5011 {
			t.Errorf("%s has no remedy", StorageCodeName(code))
		}
	}
}

func TestEveryCodeWithAMeaningHasAName(t *testing.T) {
	for code := range deviceTexts {
		if _, found := deviceCodes[code]; !found {
			t.Errorf("%d has a text and no name", code)
		}
	}
	for code := range deviceRemedies {
		if deviceTexts[code] == "" {
			t.Errorf("%s has a remedy and no text", DeviceCodeName(code))
		}
	}
}

func TestUUIDsReadWhatTheyPrint(t *testing.T) {
	u := UUID{0x53, 0x54, 0x55, 0x42, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	const text = "GPU-53545542-0405-0607-0809-0a0b0c0d0e0f"
	if u.String() != text {
		t.Errorf("printed %s, want %s", u, text)
	}
	for _, form := range []string{text, "MIG-" + text[4:], text[4:], strings.ReplaceAll(text[4:], "-", "")} {
		if got, err := ParseUUID(form); err != nil || got != u {
			t.Errorf("%s: %v, %v", form, got, err)
		}
	}
	for _, form := range []string{"", "GPU-", text + "00", "GPU-zz" + text[6:], text[:30]} {
		if got, err := ParseUUID(form); err == nil {
			t.Errorf("%q was read as %s", form, got)
		}
	}
}

func TestOptionsReportEveryConflictAtOnce(t *testing.T) {
	err := Options{Device: "/lib\x00", Storage: "\x00", Statistics: 4, Parameters: Parameters{MaxDirectBytes: -1, MaxPinnedBytes: 1, LogDir: "/var\x00/log"}}.Validate()
	for _, want := range []string{"statistics level 4", "MaxDirectBytes -1", "MaxPinnedBytes 1", `Device "/lib\x00"`, `Storage "\x00"`, `LogDir "/var\x00/log"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if err := (Options{Statistics: 3, Parameters: Parameters{MaxDirectBytes: 16 << 20}}).Validate(); err != nil {
		t.Error(err)
	}
	if _, err := Open(Options{Statistics: -1}); err == nil {
		t.Error("Open took statistics level -1")
	}
}
