package tar

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/stokerio/stoker/internal/pythonoracle"
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
type oracle struct{ *pythonoracle.Oracle }

// startOracle runs the program until the test ends. An archive takes it 2 s of CPU
// time at most.
func startOracle(t *testing.T) *oracle {
	t.Helper()
	return &oracle{pythonoracle.Start(t, "testdata/oracle.py", "webdataset")}
}

// judge asks the oracle.
func (o *oracle) judge(t *testing.T, archive []byte) judgement {
	t.Helper()
	message := binary.LittleEndian.AppendUint64(nil, uint64(len(archive)))
	var j judgement
	o.Ask(t, append(message, archive...), &j)
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
