package inventory

import "testing"

func TestALinkOfUnknownKindHasNoRate(t *testing.T) {
	for link, want := range map[Link]int64{
		{}:                                0,
		{GenerationMax: 99, WidthMax: 16}: 0,
		{GenerationMax: 1, WidthMax: 1}:   250_000_000,
		{GenerationMax: 4, WidthMax: 16}:  31_507_692_307,
	} {
		if got := link.BytesPerSecondMax(); got != want {
			t.Errorf("%+v: %d, want %d", link, got, want)
		}
	}
}

// CUDA gives a partition's UUID as bytes, so that whoever prints them writes GPU-.
func TestAPartitionIsFoundOnItsGPU(t *testing.T) {
	whole, part := &Memory{80 << 30, 70 << 30}, &Memory{10 << 30, 9 << 30}
	found := Inventory{GPUs: []GPU{
		{UUID: "", MIG: &MIG{Devices: []MIGDevice{{}}}},
		{UUID: "GPU-1", Memory: &Memory{}},
		{UUID: "GPU-2", Memory: whole, MIG: &MIG{Enabled: true, Devices: []MIGDevice{{UUID: "MIG-7"}, {UUID: "MIG-8", Memory: part}}}},
	}}
	for uuid, want := range map[string]*Memory{"GPU-2": whole, "GPU-8": part, "MIG-8": part, "8": part, "GPU-7": nil} {
		if gpu := found.Find(uuid); gpu != &found.GPUs[2] || gpu.MemoryOf(uuid) != want {
			t.Errorf("%s is found as %+v", uuid, gpu)
		}
	}
	for _, uuid := range []string{"GPU-9", "", "GPU-"} {
		if gpu := found.Find(uuid); gpu != nil {
			t.Errorf("%q is found as %+v", uuid, gpu)
		}
	}
}
