package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/stokerio/stoker/loader/api"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// trained lets the fake's first session go on for a second of training, in which it
// waits 0.4 s.
func (n *fakeNode) trained() {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &n.sessions[0]
	s.SamplesConsumed += 640
	s.Traffic.Batches += 10
	s.Traffic.Samples += 640
	s.Traffic.PageCacheBytes += 600 << 20
	s.Traffic.DiskBytes += 200 << 20
	s.Stall.TotalSeconds += 0.4
	s.Stall.DiskSeconds += 0.3
	s.Stall.WakeSeconds += 0.05
}

// watched is a place with a fake daemon whose sessions go on while one waits.
func watched(t *testing.T) (*place, *fakeNode) {
	p, node := newPlace(t), newFakeNode()
	for i := range node.sessions {
		node.sessions[i].StartedAt = noon.Add(-time.Minute)
	}
	p.clock = &virtualClock{at: noon, waited: node.trained}
	p.serveAPI(t, node)
	return p, node
}

func TestTopWritesOneFrame(t *testing.T) {
	for name, args := range map[string][]string{
		"top-once":        {"top", "--once"},
		"top-once-json":   {"top", "--once", "--json"},
		"top-no-terminal": {"top", "--interval", "2s"},
		"top-too-often":   {"top", "--interval", "1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := watched(t)
			golden(t, name, p.run(t, args...))
		})
	}
}

func TestTopWritesJSONUntilItIsInterrupted(t *testing.T) {
	p, node := watched(t)
	ctx, interrupt := contextOf(t)
	frames := 0
	p.clock.waited = func() {
		node.trained()
		if frames++; frames == 4 {
			interrupt()
		}
	}
	got := p.runContext(ctx, "top", "--json")
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	if got.code != exitOK || len(lines) != 3 {
		t.Fatalf("%+v", got)
	}
	for _, line := range lines {
		var f frame
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Totals.SamplesPerSecond != 640 || len(f.Sessions) != 2 || f.Sessions[0].ID != "s-1" {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestTopEndsWithAnErrorWhenTheDaemonDoes(t *testing.T) {
	p := newPlace(t)
	stop := p.serveAPI(t, newFakeNode())
	p.clock = &virtualClock{at: noon, waited: stop}
	if got := p.run(t, "top", "--json"); got.code != exitNotRunning || got.out != "" || !strings.Contains(got.err, "not_running") {
		t.Errorf("%+v", got)
	}
}

// frameOf draws a model as it stands.
func frameOf(m *topModel) string {
	return regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(m.View().Content, "")
}

// goldenFrame compares a frame with a committed file.
func goldenFrame(t *testing.T, name string, m *topModel) {
	t.Helper()
	golden(t, name, outcome{out: frameOf(m) + "\n"})
}

// manySights are two looks, a second apart, at so many sessions.
func manySights(sessions int) (before, now sight) {
	node := newFakeNode()
	template := node.sessions[0]
	before = sight{at: noon, daemon: node.Version()}
	now = sight{at: noon.Add(time.Second), daemon: node.Version()}
	for i := range sessions {
		s := template
		s.ID, s.Rank, s.StartedAt, s.JobID, s.Columns = "s-"+itoa(i+1), i, noon.Add(-time.Hour), "job 7", []string{"data", "label"}
		s.Client.Name, s.Ring.Bytes = "stoker-python/0.1.0", 64<<20
		before.sessions = append(before.sessions, s)
		s.Traffic.Samples += int64(i) * 100
		s.Traffic.PageCacheBytes += int64(i) << 28
		s.Stall.TotalSeconds += float64(sessions-i) / float64(sessions)
		s.Stall.RingSeconds += float64(sessions-i) / float64(sessions) / 2
		now.sessions = append(now.sessions, s)
	}
	return before, now
}

// press sends keys and returns the last command.
func press(m *topModel, keys ...rune) (last tea.Cmd) {
	for _, key := range keys {
		message := tea.KeyPressMsg{Code: key}
		if key < 128 && key != tea.KeyEscape {
			message.Text = string(key)
		}
		_, last = m.Update(message)
	}
	return last
}

func TestTopOnATerminalIsGolden(t *testing.T) {
	before, now := manySights(5)
	m := newTopModel(before, time.Second, nil)
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 20})
	goldenFrame(t, "top-first", m)
	m.Update(topSight{sight: now})
	goldenFrame(t, "top-second", m)
	press(m, 's', tea.KeyDown, tea.KeyDown)
	goldenFrame(t, "top-sorted", m)
	m.Update(tea.WindowSizeMsg{Width: 60, Height: 14})
	goldenFrame(t, "top-small", m)
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	m.Update(topSight{err: notRunning([]string{"RUNTIME/api.sock"})})
	goldenFrame(t, "top-no-news", m)
	m.Update(topSight{sight: sight{at: noon.Add(2 * time.Second), daemon: now.daemon}})
	goldenFrame(t, "top-empty", m)
	for _, size := range []tea.WindowSizeMsg{{}, {Width: 1, Height: 1}, {Width: 500, Height: 200}} {
		m.Update(size)
		if frame := frameOf(m); size.Height > 20 && strings.Count(frame, "\n") != size.Height-1 {
			t.Errorf("%+v: %d lines", size, strings.Count(frame, "\n")+1)
		}
	}
}

func TestTopKeepsTheChosenSessionInSight(t *testing.T) {
	before, now := manySights(50)
	m := newTopModel(before, time.Second, nil)
	m.Update(tea.WindowSizeMsg{Width: 120, Height: 20})
	m.Update(topSight{sight: now})
	for _, keys := range [][]rune{{tea.KeyEnd}, {tea.KeyUp, 'k'}, {tea.KeyHome, tea.KeyUp}, {'j', 's'}, {'s'}, {tea.KeyEnd, 's', 's'}} {
		press(m, keys...)
		if !regexp.MustCompile(`(?m)^>`+m.selected+` `).MatchString(frameOf(m)) || strings.Count(frameOf(m), "\n") != 19 {
			t.Errorf("after %q %s is not in\n%s", keys, m.selected, frameOf(m))
		}
	}
}

func TestTopPausesAndGoesOn(t *testing.T) {
	before, now := manySights(1)
	asked := 0
	m := newTopModel(before, time.Second, func() (sight, error) { asked++; return now, nil })
	if _, cmd := m.Update(topTick{}); cmd == nil {
		t.Fatal("a tick asks nothing")
	} else if _, next := m.Update(cmd()); next == nil || asked != 1 {
		t.Fatalf("asked %d times", asked)
	}
	if press(m, 'p') != nil || !strings.Contains(frameOf(m), "paused") {
		t.Error("it does not pause")
	}
	if _, cmd := m.Update(topTick{}); cmd != nil {
		t.Error("the tick of before the pause asks")
	}
	if cmd := press(m, 'p'); cmd == nil {
		t.Error("it does not go on")
	} else if _, next := m.Update(cmd()); next == nil || asked != 2 || strings.Contains(frameOf(m), "paused") {
		t.Error("it does not go on as before")
	}
	for _, key := range []rune{'q', tea.KeyEscape} {
		if cmd := press(m, key); cmd == nil {
			t.Errorf("%q does not quit", key)
		} else if _, quits := cmd().(tea.QuitMsg); !quits {
			t.Errorf("%q does not quit", key)
		}
	}
}

func TestRatesOfSessionsThatBeginEndAndStartAnew(t *testing.T) {
	session := func(id string, started time.Time, samples int64) api.Session {
		return api.Session{ID: id, StartedAt: started, Traffic: api.Traffic{Samples: samples}}
	}
	before := sight{at: noon, daemon: api.Version{PID: 1}, sessions: []api.Session{session("a", noon.Add(-time.Hour), 1000), session("b", noon, 5)}}
	now := sight{at: noon.Add(10 * time.Second), daemon: api.Version{PID: 1}, sessions: []api.Session{
		session("a", noon.Add(-time.Hour), 2000), session("c", noon.Add(5*time.Second), 500),
	}}
	f := compare(before, now)
	rates := []float64{f.Sessions[0].Activity.SamplesPerSecond, f.Sessions[1].Activity.SamplesPerSecond, f.Totals.SamplesPerSecond}
	if !slices.Equal(rates, []float64{100, 100, 200}) {
		t.Errorf("%v", rates)
	}
	now.daemon.PID = 2 // its "a" is another session
	if f := compare(before, now); f.Sessions[0].Activity.SamplesPerSecond != 2000/3610.0 {
		t.Errorf("%+v", f.Sessions[0].Activity)
	}
	now.at = noon.Add(-time.Minute) // a clock that was set back
	if f := compare(before, now); f.Totals.SamplesPerSecond < 0 {
		t.Errorf("%+v", f.Totals)
	}
}

func TestStallSharesNeverExceedTheTime(t *testing.T) {
	s := sharesOf(api.Stall{}, api.Stall{TotalSeconds: 30, DiskSeconds: 20, RingSeconds: 4}, 10)
	if s.Total != 1 || s.Disk != 20.0/30 || s.Ring != 4.0/30 || s.Other < 0.19 || s.Other > 0.21 {
		t.Errorf("%+v", s)
	}
	s = sharesOf(api.Stall{}, api.Stall{TotalSeconds: 1, DiskSeconds: 2}, 10)
	if s.Total != 0.2 || s.Other != 0 {
		t.Errorf("%+v", s)
	}
}

func TestBarsAndGaugesFillTheirCells(t *testing.T) {
	for _, test := range []struct {
		shares []float64
		want   string
	}{
		{[]float64{0, 0, 0, 0, 0, 0, 0}, "··········"},
		{[]float64{1, 0, 0, 0, 0, 0, 0}, "dddddddddd"},
		{[]float64{0.2, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1}, "ddiorrwt?·"},
		{[]float64{0.04, 0.04, 0, 0, 0, 0, 0}, "i·········"},
		{[]float64{0.6, 0.6, 0.6, 0, 0, 0, 0}, "ddddddiiii"},
	} {
		if got := stallBar(test.shares, 10, false); got != test.want {
			t.Errorf("%v: %s, want %s", test.shares, got, test.want)
		}
	}
	for _, test := range []struct {
		ready, held, slots int64
		want               string
	}{
		{6, 1, 8, "██████▒·"}, {0, 0, 0, ""}, {8, 0, 8, "████████"}, {0, 0, 4, "····"}, {32, 16, 64, "██████▒▒▒···"}, {9, 9, 8, "████████"}, {-1, -1, 2, "··"},
	} {
		if got := ringGauge(test.ready, test.held, test.slots, false); got != test.want {
			t.Errorf("%d+%d/%d: %s, want %s", test.ready, test.held, test.slots, got, test.want)
		}
	}
}
