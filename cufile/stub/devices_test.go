package stub_test

import (
	"testing"

	"github.com/stokerio/stoker/cufile/stub"
)

func TestDevicesAreWhatTheEnvironmentSays(t *testing.T) {
	devices := program(t, "devices")
	l := libraries(t, stub.Options{Version: stub.V1_15})
	const first, second = "1 STUB GPU 0000:10:00.0 1073741824 111 0\n", "2 STUB GPU 0000:11:00.0 1073741824 111 0\n"
	const mig = "STOKER_STUB_DEVICES=mig=1,bytes=64M;name=Old,pci=0001:3b:00.0,vmm=0,uuid=000102030405060708090a0b0c0d0e0f;fd=0,attr110=0"
	tests := []struct {
		name        string
		environment []string
		want        string
	}{
		{"nothing said", nil, "0\n" + first + second},
		{"reordered", []string{"CUDA_VISIBLE_DEVICES=1,0"}, "0\n" + second + first},
		{"one", []string{"CUDA_VISIBLE_DEVICES=1"}, "0\n" + second},
		{"by UUID", []string{"CUDA_VISIBLE_DEVICES=GPU-53545542-0000-0000-0000-000000000002"}, "0\n" + second},
		{"cut at an unknown one", []string{"CUDA_VISIBLE_DEVICES=0,7,1"}, "0\n" + first},
		{"named twice", []string{"CUDA_VISIBLE_DEVICES=0,0"}, "100\n"},
		{"hidden", []string{"CUDA_VISIBLE_DEVICES="}, "100\n"},
		{"none", []string{"STOKER_STUB_DEVICES="}, "100\n"},
		{
			"described",
			[]string{mig},
			"0\n1 STUB GPU MIG 1g.10gb 0000:10:00.0 67108864 111 801\n15 Old 0001:3b:00.0 1073741824 000 0\n3 STUB GPU 0000:12:00.0 1073741824 100 0\n",
		},
		{"MIG by UUID", []string{mig, "CUDA_VISIBLE_DEVICES=MIG-53545542"}, "0\n1 STUB GPU MIG 1g.10gb 0000:10:00.0 67108864 111 801\n"},
		{"driver fails", []string{"STOKER_STUB_FAULTS=cuInit:999"}, "999\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := run(t, test.environment, devices, l.CUDA, l.CUFile)
			if r.err != nil || r.stdout != test.want {
				t.Errorf("%v\n%s%s\nwant\n%s", r.err, r.stdout, r.stderr, test.want)
			}
		})
	}
}
