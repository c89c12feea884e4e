package doctor

import (
	"context"
	_ "embed"

	"github.com/stokerio/stoker/cufile"
)

// pythonProbe is a program for a trainer's interpreter.
//
//go:embed probe.py
var pythonProbe string

// pythonAnswer is what it prints.
type pythonAnswer struct {
	Python   string `json:"python"`
	Torch    string `json:"torch"`
	Checksum uint32 `json:"checksum"`
	Error    string `json:"error"`
}

// provePython has an interpreter make a tensor over a slab of this process.
func provePython(ctx context.Context, driver *cufile.Driver, info *cufile.DeviceInfo, interpreter other) (p PythonProbe) {
	p.Interpreter = interpreter.command[0]
	device, slab, err := filledSlab(driver, info)
	if err != nil {
		p.Err = err.Error()
		return p
	}
	defer closing(&p.Err, device.Close)
	defer closing(&p.Err, slab.Close)
	var answer pythonAnswer
	if err := share(ctx, slab, interpreter, &answer); err != nil {
		p.Err = err.Error()
		return p
	}
	p.Python, p.Torch, p.Err = answer.Python, answer.Torch, answer.Error
	p.Tensor = answer.Error == "" && answer.Checksum == ieee(sharedPattern())
	return p
}
