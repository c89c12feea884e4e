package doctor

import (
	"fmt"

	"github.com/stokerio/stoker/cufile"
)

// proved is the route that every directory was read by; NotDirect or Unknown if there is
// no such route, or nothing was tried.
func (m *Machine) proved() cufile.Route {
	if m.Probes == nil || len(m.Probes.Routes) == 0 {
		return cufile.Unknown
	}
	route := cufile.Unknown
	for i, p := range m.Probes.Routes {
		switch {
		case p.Err != "" || !p.Proof.Route.Direct():
			return cufile.NotDirect
		case i > 0 && p.Proof.Route != route:
			return cufile.NvidiaFS // some by each: the kernel module is needed
		}
		route = p.Proof.Route
	}
	return route
}

// examineRoute says which way bytes took that were read for the purpose.
func examineRoute(m *Machine) Check {
	if len(m.Probes.Routes) == 0 {
		return Check{Status: None, Found: "not examined: no directory could be used"}
	}
	var parts []part
	for i := range m.Probes.Routes {
		parts = append(parts, routePart(&m.Probes.Routes[i]))
	}
	c := joined(parts...)
	if c.Status == OK {
		c.Meaning = "bytes go from the drive into GPU memory, and not through host memory"
	}
	return c
}

func routePart(p *RouteProbe) part {
	switch {
	case p.Wrong:
		return part{Bad, p.Directory + ": " + p.Err, "a file was read, and it went wrong: " + p.Err, "sudo dmesg | tail -50 (then report it, with the output of stoker doctor --prove --json)"}
	case p.Err != "":
		return part{Warn, p.Directory + ": " + p.Err, "it could not be tried: " + p.Err, howToTry(p.Directory, p.Err, "stoker doctor --prove")}
	}
	stub := ""
	if p.Proof.Stub {
		stub = "STUB "
	}
	reason, remedy := withoutRemedy(p.Proof.Reason), "look at the lines that say warn"
	if p.Proof.Refusal != nil && p.Proof.Refusal.Remedy() != "" {
		remedy = p.Proof.Refusal.Remedy()
	}
	found := fmt.Sprintf("%s%s: %s", stub, p.Directory, reason)
	if p.Proof.Counted {
		found += fmt.Sprintf(" (reads by P2PDMA %d, nvidia-fs %d, POSIX %d, unaligned %d)", p.Proof.P2PReads, p.Proof.NvidiaFSReads, p.Proof.PosixReads, p.Proof.UnalignedReads)
	}
	switch p.Proof.Route {
	case cufile.PCIP2PDMA, cufile.NvidiaFS:
		return part{OK, found, "", ""}
	case cufile.NotDirect:
		return part{Warn, found, "there is no direct route: " + reason, remedy}
	}
	return part{Warn, found, "the bytes are right, but nothing says which way they took; Stoker takes that for not direct", installLibrary}
}

// nearLimit is which share of a limit counts as reaching it.
const nearLimit = 0.8

func examineSpeed(m *Machine) Check {
	s := m.Probes.Speed
	switch {
	case m.GPU.Versions.Stub:
		return Check{Status: None, Found: "STUB: no speeds, as they would be none of a GPU"}
	case s == nil:
		return Check{Status: None, Found: "not measured"}
	case s.Err != "":
		return Check{Status: Info, Found: s.Err, Meaning: "how fast drive and GPU are is not known"}
	}
	found := "host to GPU " + rate(s.Upload) + ", drive " + rate(s.Disk) + " (O_DIRECT)"
	if s.Direct > 0 {
		found += ", drive to GPU directly " + rate(s.Direct)
	}
	c := Check{Status: OK, Found: found + ", one second each", Meaning: "the way into the GPU is the limit"}
	if s.Disk < nearLimit*s.Upload {
		c.Status = Info
		c.Meaning = fmt.Sprintf("the drive is the limit: %s of the %s that go into the GPU", rate(s.Disk), rate(s.Upload))
	}
	return c
}

// pythonRemedy gives an interpreter what it lacks. Stoker's package comes with its
// sources: pip's index has none.
func pythonRemedy(p *PythonProbe) string {
	const ours = " -m pip install ./python (in the folder of Stoker's sources)"
	switch {
	case p.Python == "": // it did not get as far as to say what it is
		return "stoker doctor --prove --python .venv/bin/python"
	case p.Torch == "":
		return word(p.Interpreter) + " -m pip install torch"
	}
	return word(p.Interpreter) + ours
}

func examinePython(m *Machine) Check {
	p := m.Probes.Python
	found := fmt.Sprintf("%s: Python %s, torch %s", p.Interpreter, orElse(p.Python, "?"), orElse(p.Torch, "not there"))
	switch {
	case p.Interpreter == "":
		return Check{Status: None, Found: "no interpreter to try", Remedy: "stoker doctor --prove --python .venv/bin/python"}
	case p.Err != "":
		return Check{Status: Warn, Found: found + ": " + p.Err, Meaning: "trainers with this interpreter cannot use GPU memory of the daemon's; batches go through host memory", Remedy: pythonRemedy(&p)}
	case !p.Tensor:
		return Check{Status: Warn, Found: found, Meaning: "a tensor over another process's slab has wrong values", Remedy: word(p.Interpreter) + " -m pip install --upgrade torch (then report it, with the output of stoker doctor --prove --json)"}
	}
	return Check{Status: OK, Found: found, Meaning: "a tensor over another process's slab has the right values"}
}
