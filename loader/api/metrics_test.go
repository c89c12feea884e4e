package api

import (
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestNodeMetricsAreGolden(t *testing.T) {
	registry := prometheus.NewRegistry()
	requests := newRequestCounter()
	requests.count("api", 200)
	requests.count("api", 200)
	requests.count("tcp", 404)
	registry.MustRegister(newNodeCollector(newFakeNode()), requests)
	const golden = "testdata/metrics.txt"
	if *update {
		writeGolden(t, golden, registry)
	}
	want, err := os.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if err := testutil.GatherAndCompare(registry, want); err != nil {
		t.Error(err)
	}
}

func writeGolden(t *testing.T, path string, registry *prometheus.Registry) {
	t.Helper()
	s := serveInMemory(t, access{})
	s.server.handler.scrape = scrapeHandler(registry, quiet())
	_, _, body := s.do(t, "GET", "/metrics")
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestMetricNamesFollowTheConventions(t *testing.T) {
	problems, err := testutil.GatherAndLint(newRegistry(newFakeNode(), newRequestCounter()))
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
}

func TestMetricsHoldTheProcessToo(t *testing.T) {
	s := serveInMemory(t, access{})
	s.do(t, "GET", "/healthz")
	status, header, body := s.do(t, "GET", "/metrics")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Errorf("%d %s", status, header.Get("Content-Type"))
	}
	for _, want := range []string{
		"stoker_process_pss_bytes ", "go_goroutines ", "process_cpu_seconds_total ", "process_open_fds ",
		`stoker_api_requests_total{door="memory",status="200"} 1`, `stoker_source_bytes_total{route="disk"} 1000`,
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

func TestScrapesAreCompressedOnRequest(t *testing.T) {
	s := serveInMemory(t, access{})
	request, err := http.NewRequest("GET", "http://localhost/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept-Encoding", "gzip")
	response, err := s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.Header.Get("Content-Encoding") != "gzip" || len(body) < 2 || body[0] != 0x1f {
		t.Errorf("%v, %v", response.Header, err)
	}
}

func TestParsePSS(t *testing.T) {
	if got, ok := parsePSS([]byte("00400000-7fff r--p [rollup]\nRss: 9 kB\nPss:      1234 kB\nPss_Dirty: 5 kB\n")); !ok || got != 1234<<10 {
		t.Errorf("%d, %v", got, ok)
	}
	for _, text := range []string{"", "Pss: kB\n", "Pss: x kB\n", "Pss: 1 MB\n", "Pss: 1 2 kB\n"} {
		if got, ok := parsePSS([]byte(text)); ok {
			t.Errorf("%q: %d", text, got)
		}
	}
}
