//go:build cgo && linux

package inventory

import (
	"context"
	"fmt"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// measured are the metrics that are asked for. NVML has shares in percent, and traffic
// in MiB a second (nvml.h, nvmlGpmMetricId_t).
var measured = []struct {
	id    nvml.GpmMetricId
	scale float64
	field func(*Metrics) **float64
}{
	{nvml.GPM_METRIC_SM_UTIL, 0.01, func(m *Metrics) **float64 { return &m.Multiprocessors }},
	{nvml.GPM_METRIC_SM_OCCUPANCY, 0.01, func(m *Metrics) **float64 { return &m.Occupancy }},
	{nvml.GPM_METRIC_ANY_TENSOR_UTIL, 0.01, func(m *Metrics) **float64 { return &m.Tensor }},
	{nvml.GPM_METRIC_DRAM_BW_UTIL, 0.01, func(m *Metrics) **float64 { return &m.MemoryBandwidth }},
	{nvml.GPM_METRIC_PCIE_TX_PER_SEC, 1 << 20, func(m *Metrics) **float64 { return &m.PCIeSent }},
	{nvml.GPM_METRIC_PCIE_RX_PER_SEC, 1 << 20, func(m *Metrics) **float64 { return &m.PCIeReceived }},
}

// gpmSymbols are what measuring calls; drivers before 525 have none of them.
var gpmSymbols = []string{"nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc", "nvmlGpmSampleGet", "nvmlGpmMetricsGet", "nvmlGpmSampleFree"}

// measure fills in the metrics of all GPUs, which share one interval.
func measure(ctx context.Context, boards []*board, o Options) {
	if o.Interval <= 0 {
		return
	}
	defer func() {
		for _, b := range boards {
			b.free()
		}
	}()
	var able []*board
	for _, b := range boards {
		if b.device != nil && b.canMeasure() && b.begin() {
			able = append(able, b)
		}
	}
	if len(able) == 0 {
		return
	}
	wait := o.Wait
	if wait == nil {
		wait = waitByClock
	}
	if err := wait(ctx, o.Interval); err != nil {
		for _, b := range able {
			b.gpu.lacks("metrics", fmt.Sprintf("the measurement was ended early: %v", err))
		}
		return
	}
	for _, b := range able {
		b.end()
	}
}

func waitByClock(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func (b *board) canMeasure() bool {
	for _, symbol := range gpmSymbols {
		if b.library.Extensions().LookupSymbol(symbol) != nil {
			b.gpu.lacks("metrics", "this driver's library has no "+symbol)
			return false
		}
	}
	support, code := b.device.GpmQueryDeviceSupport()
	if code == nvml.SUCCESS && support.IsSupportedDevice == 0 {
		code = nvml.ERROR_NOT_SUPPORTED
	}
	if code != nvml.SUCCESS {
		b.gpu.lacks("metrics", reason(code))
	}
	return code == nvml.SUCCESS
}

// begin takes the first sample. What it allocates, free gives back.
func (b *board) begin() bool {
	var code nvml.Return
	if b.first, code = b.library.GpmSampleAlloc(); code == nvml.SUCCESS {
		if b.second, code = b.library.GpmSampleAlloc(); code == nvml.SUCCESS {
			code = b.device.GpmSampleGet(b.first)
		} else {
			b.second = nil
		}
	} else {
		b.first = nil
	}
	if code != nvml.SUCCESS {
		b.gpu.lacks("metrics", reason(code))
	}
	return code == nvml.SUCCESS
}

func (b *board) free() {
	for _, sample := range []nvml.GpmSample{b.first, b.second} {
		if sample != nil {
			b.library.GpmSampleFree(sample)
		}
	}
	b.first, b.second = nil, nil
}

// end takes the second sample, and what happened between the two.
func (b *board) end() {
	code := b.device.GpmSampleGet(b.second)
	request := nvml.GpmMetricsGetType{NumMetrics: uint32(len(measured)), Sample1: b.first, Sample2: b.second}
	if code == nvml.SUCCESS {
		for i := range measured {
			request.Metrics[i].MetricId = uint32(measured[i].id)
		}
		code = b.library.GpmMetricsGet(&request)
	}
	if code != nvml.SUCCESS {
		b.gpu.lacks("metrics", reason(code))
		return
	}
	b.gpu.Metrics = &Metrics{}
	for i := range measured {
		if answer := &request.Metrics[i]; nvml.Return(answer.NvmlReturn) == nvml.SUCCESS {
			value := answer.Value * measured[i].scale
			*measured[i].field(b.gpu.Metrics) = &value
		}
	}
}
