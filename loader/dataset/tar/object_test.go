package tar

import (
	"testing"

	"github.com/stokerio/stoker/backend"
	"github.com/stokerio/stoker/loader/dataset/internal/viewcheck"
)

func TestTheObjectOfANumberIsTheOneThatIsPlanned(t *testing.T) {
	s := scanShards(t, shards(t, map[string][]byte{
		"a.tar":    makeTar(t, []file{{"0.jpg", "j0"}, {"0.cls", "0"}}),
		"b.tar":    new(archive).file("1.cls", "1").sparseFile("1.jpg", 9, "1,3", "abc").end(),
		"c.tar.gz": gzipped(t, makeTar(t, []file{{"2.jpg", "j2"}})),
	}), Options{})
	v := s.view(t, ViewOptions{})
	if seen, err := viewcheck.Objects(v); err != nil || seen != 4 {
		t.Errorf("%d objects, %v", seen, err)
	}
	if v.Objects() != 6 {
		t.Errorf("%d numbers for 3 shards", v.Objects())
	}
	var scratch []byte
	if _, err := v.Object(3, &scratch); backend.KindOf(err) != backend.OutOfRange { // a.tar has no sparse member
		t.Errorf("%v", err)
	}
	if sparse, err := v.Object(4, &scratch); err != nil || sparse.Number == 1 || sparse.Version.Size != 9 {
		t.Errorf("%+v, %v", sparse, err)
	}
}
