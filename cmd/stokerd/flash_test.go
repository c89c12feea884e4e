package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stokerio/stoker/backend/flash"
	"github.com/stokerio/stoker/loader/api"
	"github.com/stokerio/stoker/loader/config"
)

// askCache asks a daemon for /v1/cache.
func askCache(t *testing.T, cfg config.Config) (cache api.Cache) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(cfg.RuntimeDir, api.SocketName))
	}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("http://stokerd/v1/cache")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&cache); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", response.Status, err)
	}
	return cache
}

func TestTheDaemonOpensItsFlashDevicesAndGivesThemBack(t *testing.T) {
	cfg := testConfig(t)
	device := filepath.Join(t.TempDir(), "flash")
	cfg.Flash.Devices = []config.FlashDevice{{Path: device + "/", Limit: 64 << 20}}
	for range 2 {
		d, err := start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		cache := askCache(t, cfg)
		if len(cache.Devices) != 1 || cache.Devices[0].Path != device || cache.Devices[0].LimitBytes != 64<<20 || cache.Devices[0].State != api.CacheHealthy {
			t.Errorf("%+v", cache.Devices)
		}
		other := testConfig(t)
		other.Flash = cfg.Flash
		if _, err := start(other); err == nil || !strings.Contains(err.Error(), "another process has it") {
			t.Errorf("a second daemon with the device: %v", err)
		}
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestTheDaemonDoesNotTouchWhatIsNotItsOwn(t *testing.T) {
	cfg := testConfig(t)
	mine := filepath.Join(t.TempDir(), "thesis.tex")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Flash.Devices = []config.FlashDevice{{Path: filepath.Dir(mine)}}
	if _, err := start(cfg); err == nil || !strings.Contains(err.Error(), "thesis.tex") || !strings.Contains(err.Error(), "flash.devices") {
		t.Errorf("a directory of somebody's files as a device: %v", err)
	}
	if text, err := os.ReadFile(mine); err != nil || string(text) != "mine" {
		t.Errorf("the file became %q, %v", text, err)
	}
}

func TestFlashIsConfigured(t *testing.T) {
	cfg := config.Default().Flash
	if got := flashOptions(cfg); len(got.Devices) != 0 || got.SyncInterval != time.Second || got.ScrubBytesPerSecond != 0 || got.Direct {
		t.Errorf("defaults: %+v", got)
	}
	cfg = config.Flash{Devices: []config.FlashDevice{{Path: "/nvme0/", Limit: 1 << 30}, {Path: "/nvme1"}}, Direct: true, SyncInterval: time.Minute, Scrub: true, ScrubRate: 5}
	want := []flash.Device{{Path: "/nvme0", LimitBytes: 1 << 30}, {Path: "/nvme1"}}
	if got := flashOptions(cfg); !reflect.DeepEqual(got.Devices, want) || got.SyncInterval != time.Minute || got.ScrubBytesPerSecond != 5 || !got.Direct {
		t.Errorf("%+v", got)
	}
	cfg.Scrub = false
	if got := flashOptions(cfg); got.ScrubBytesPerSecond >= 0 {
		t.Errorf("scrubbing is off: %d bytes a second", got.ScrubBytesPerSecond)
	}
}
