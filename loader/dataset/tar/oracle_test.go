package tar

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
)

// The oracle is Python's tarfile with webdataset's grouping, run by testdata/oracle.py
// in one process. Whatever archive: it and this package find equal samples, or both
// refuse it, but for the differences that oracle_differences_test.go lists.

// judgement is what the oracle says of an archive.
type judgement struct {
	Samples []judgedSample `json:"samples"`
	Error   string         `json:"error"`
	Stop    string         `json:"stop"`
	Offset  int64          `json:"offset"`
	Python  string         `json:"python"`
}

func (j *judgement) refuses() bool { return j.Error != "" }

// judgedSample is [key, [[suffix, size, crc], ...]].
type judgedSample found

func (s *judgedSample) UnmarshalJSON(b []byte) error {
	var key string
	var parts [][3]json.RawMessage
	if err := json.Unmarshal(b, &[]any{&key, &parts}); err != nil {
		return err
	}
	raw, err := hex.DecodeString(key)
	s.key = string(raw)
	for _, part := range parts {
		var p foundPart
		var suffix string
		if err == nil {
			err = json.Unmarshal(part[0], &suffix)
		}
		if err == nil {
			raw, err = hex.DecodeString(suffix)
		}
		if err == nil {
			err = json.Unmarshal(part[1], &p.size)
		}
		if err == nil {
			err = json.Unmarshal(part[2], &p.crc)
		}
		p.suffix = string(raw)
		s.parts = append(s.parts, p)
	}
	return err
}

func (j *judgement) found() []found {
	var all []found
	for _, s := range j.Samples {
		all = append(all, found(s))
	}
	return all
}

// oracle is the running program.
type oracle struct {
	in  io.WriteCloser
	out *json.Decoder
}

// startOracle runs the program until the test ends.
func startOracle(t *testing.T) *oracle {
	t.Helper()
	python := os.Getenv("STOKER_TEST_PYTHON")
	if python == "" {
		python = "../../../.venv/bin/python"
	}
	if err := exec.Command(python, "-c", "import webdataset").Run(); err != nil {
		t.Fatalf("%s cannot import webdataset: %v; run make setup, or set STOKER_TEST_PYTHON to a Python that has it", python, err)
	}
	cmd := exec.Command(python, "-B", "testdata/oracle.py")
	cmd.Env = append(os.Environ(), "PYTHONUTF8=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // ends it; an archive takes it 2 s of CPU time at most
		if err := cmd.Wait(); err != nil {
			t.Errorf("oracle: %v", err)
		}
	})
	return &oracle{in: in, out: json.NewDecoder(bufio.NewReader(out))}
}

// judge asks the oracle.
func (o *oracle) judge(t *testing.T, archive []byte) judgement {
	t.Helper()
	message := binary.LittleEndian.AppendUint64(nil, uint64(len(archive)))
	if _, err := o.in.Write(append(message, archive...)); err != nil {
		t.Fatalf("oracle: %v", err)
	}
	var j judgement
	if err := o.out.Decode(&j); err != nil {
		t.Fatalf("oracle: %v", err)
	}
	return j
}

// comparison is an archive as both see it.
type comparison struct {
	archive []byte
	ours    outcome
	theirs  judgement
}

func (o *oracle) compare(t *testing.T, archive []byte) comparison {
	t.Helper()
	return comparison{archive, read(archive), o.judge(t, archive)}
}

// equal says whether both find equal samples or both refuse.
func (c *comparison) equal() bool {
	if c.ours.err != nil || c.theirs.refuses() {
		return c.ours.err != nil && c.theirs.refuses()
	}
	return same(c.ours.samples, c.theirs.found())
}
