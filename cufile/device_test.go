//go:build cgo && linux

package cufile

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

func TestDevicesAreFoundByUUIDWhateverTheirOrder(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	before, err := d.Devices()
	if err != nil || len(before) != 2 || before[0].Name != "STUB GPU" || !before[0].Exportable() || before[0].Major == 0 || before[0].PCI == "" {
		t.Fatalf("devices %+v, %v", before, err)
	}
	r.close(d)
	t.Setenv("CUDA_VISIBLE_DEVICES", "1,0")
	d = r.open()
	after, err := d.Devices()
	if err != nil || len(after) != 2 || after[0].UUID != before[1].UUID {
		t.Fatalf("devices %+v, %v", after, err)
	}
	g, err := d.Device(before[0].UUID)
	if err != nil || g.Info().Ordinal != 1 {
		t.Errorf("device %v, %v, want ordinal 1", g, err)
	}
	r.close(g, d)
	t.Setenv("CUDA_VISIBLE_DEVICES", "1")
	d = r.open()
	if _, err := d.Device(before[0].UUID); !errors.Is(err, ErrNoDevice) {
		t.Errorf("a hidden device: %v, want ErrNoDevice", err)
	}
	r.close(d)
}

func TestAGPUThatDoesNotAnswerHidesNoOther(t *testing.T) {
	r := newRig(t, stub.V1_15)
	d := r.open()
	all, err := d.Devices()
	if err != nil || len(all) != 2 {
		t.Fatalf("devices %+v, %v", all, err)
	}
	sick := stub.Fault{Op: "cuDeviceTotalMem", Value: 999}
	r.faults(sick)
	if left, err := d.Devices(); errorOf(err) == nil || errorOf(err).Object != "GPU 0" || len(left) != 1 || left[0].UUID != all[1].UUID {
		t.Errorf("devices %+v, %v, want the second and an error of the first", left, err)
	}
	r.fired(1)
	r.faults(sick)
	g, err := d.Device(all[1].UUID)
	if err != nil {
		t.Fatal(err)
	}
	r.fired(1)
	r.faults(sick)
	if _, err := d.Device(all[0].UUID); errorOf(err) == nil || errorOf(err).CUDA != 999 {
		t.Errorf("the one that does not answer: %v, want CUDA's 999", err)
	}
	r.fired(1)
	r.faults()
	r.close(g, d)
}

// Each attribute by its number in cuda.h, alone against all others.
func TestAttributesBecomeTheFieldsOfTheirName(t *testing.T) {
	fields := map[int]func(DeviceInfo) bool{
		102: func(i DeviceInfo) bool { return i.VirtualMemory },
		103: func(i DeviceInfo) bool { return i.DescriptorExport },
		110: func(i DeviceInfo) bool { return i.DirectVirtualMemory },
		113: func(i DeviceInfo) bool { return i.ReadOnlyHost },
		116: func(i DeviceInfo) bool { return i.DirectMemory },
	}
	for number := range fields {
		text := "name=one,pci=0000:3b:00.0,cc=8.6,bytes=64M"
		for other := range fields {
			text += fmt.Sprintf(",attr%d=%d", other, map[bool]int{true: 1}[other == number])
		}
		t.Setenv("STOKER_STUB_DEVICES", text)
		r := newRig(t, stub.V1_15)
		d := r.open()
		all, err := d.Devices()
		if err != nil {
			t.Fatal(err)
		}
		i := all[0]
		if i.Name != "one" || i.PCI != "0000:3b:00.0" || i.Major != 8 || i.Minor != 6 || i.Bytes != 64<<20 {
			t.Errorf("%+v", i)
		}
		for other, field := range fields {
			if field(i) != (other == number) {
				t.Errorf("attribute %d alone gives %+v", number, i)
			}
		}
		r.close(d)
	}
}

func TestPropertiesAreReadIntoTheFieldsOfTheirName(t *testing.T) {
	t.Setenv("STOKER_STUB_ROUTE", "nvfs")
	r := newRig(t, stub.V1_15)
	d := r.open()
	got, err := d.Properties()
	want := Properties{
		KernelMajor: 2, KernelMinor: 26, PollThresholdBytes: 4 << 10, MaxDirectBytes: 16 << 20, FileSystems: 1 << NVMe,
		Features: 1<<1 | 1<<2 | 1<<3, MaxCacheBytes: 128 << 20, PerBufferCacheBytes: 1 << 20, MaxPinnedBytes: 32 << 30,
	}
	if err != nil || got != want {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	r.close(d)
}
