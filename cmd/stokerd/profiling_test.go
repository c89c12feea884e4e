package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stokerio/stoker/loader/config"
)

func TestProfilesArePushedToAPyroscopeServerWhenAsked(t *testing.T) {
	var mu sync.Mutex
	var pushes []string
	var user, password string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		pushes = append(pushes, r.URL.Path+"?"+r.URL.RawQuery)
		user, password, _ = r.BasicAuth()
	}))
	defer server.Close()
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	stop, err := startPyroscope(config.Pyroscope{
		ServerAddress: server.URL, ApplicationName: "stokerd.test", Tags: map[string]string{"node": "one"},
		BasicAuthUser: "me", BasicAuthPasswordFile: secret,
	}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(pushes) == 0 || !strings.Contains(pushes[0], "stokerd.test") {
		t.Errorf("pushed %q, expected profiles of stokerd.test", pushes)
	}
	if user != "me" || password != "hunter2" {
		t.Errorf("pushed as %q with password %q", user, password)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Error("the password is in the log")
	}
}

func TestNothingIsPushedUnlessAsked(t *testing.T) {
	stop, err := startPyroscope(config.Pyroscope{ApplicationName: "stokerd"}, slog.New(slog.DiscardHandler))
	if stop != nil || err != nil {
		t.Errorf("started something: %v", err)
	}
}
