package main

import (
	"cmp"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// topSorts are the orders of sessions that the key s goes through.
var topSorts = []struct {
	name    string
	compare func(a, b running) int // nil: as they started
}{
	{"start", nil},
	{"samples/s", func(a, b running) int { return cmp.Compare(b.Activity.SamplesPerSecond, a.Activity.SamplesPerSecond) }},
	{"read/s", func(a, b running) int { return cmp.Compare(b.Activity.bytesPerSecond(), a.Activity.bytesPerSecond()) }},
	{"waits", func(a, b running) int {
		return cmp.Compare(b.Activity.StallShares.Total, a.Activity.StallShares.Total)
	}},
	{"dataset", func(a, b running) int { return cmp.Compare(a.Dataset, b.Dataset) }},
}

// topModel is the state of `stoker top` on a terminal. Time comes in by messages
// only: a sight says when it was taken, and a tick that it is time for the next.
type topModel struct {
	interval time.Duration
	look     func() (sight, error)

	last    sight  // the newest
	shown   frame  // as the daemon lists the sessions
	trouble string // why the newest look failed
	round   int    // of looks and ticks: those of an earlier round are not wanted any more
	paused  bool

	sort     int
	selected string
	width    int
	height   int
}

// topSight is the outcome of a look.
type topSight struct {
	round int
	sight sight
	err   error
}

// topTick says that the interval is over.
type topTick struct{ round int }

func newTopModel(first sight, interval time.Duration, look func() (sight, error)) *topModel {
	m := &topModel{interval: interval, look: look, last: first, shown: compare(first, first), width: topFrameWidth, height: 40}
	m.choose(0)
	return m
}

// Init implements tea.Model.
func (m *topModel) Init() tea.Cmd { return m.tick() }

// Update implements tea.Model.
func (m *topModel) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case tea.KeyPressMsg:
		return m, m.key(message.String())
	case topTick:
		if message.round == m.round {
			return m, m.ask()
		}
	case topSight:
		if message.round == m.round {
			m.take(message)
			return m, m.tick()
		}
	}
	return m, nil
}

// take shows what a look brought; one that failed leaves what was shown before.
func (m *topModel) take(news topSight) {
	if news.err != nil {
		m.trouble = failureOf(news.err).What
		return
	}
	m.trouble = ""
	m.shown = compare(m.last, news.sight)
	m.last = news.sight
	m.choose(0)
}

func (m *topModel) tick() tea.Cmd {
	round := m.round
	return tea.Tick(m.interval, func(time.Time) tea.Msg { return topTick{round} })
}

func (m *topModel) ask() tea.Cmd {
	round := m.round
	return func() tea.Msg {
		s, err := m.look()
		return topSight{round, s, err}
	}
}

func (m *topModel) key(key string) tea.Cmd {
	switch key {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "s":
		m.sort = (m.sort + 1) % len(topSorts)
	case "p", "space":
		m.round++ // ends the waiting and asking that is under way
		m.paused = !m.paused
		if !m.paused {
			return m.ask()
		}
	case "up", "k":
		m.choose(-1)
	case "down", "j":
		m.choose(1)
	case "home":
		m.choose(-len(m.shown.Sessions))
	case "end":
		m.choose(len(m.shown.Sessions))
	}
	return nil
}

// choose moves the choice by some rows, and to the first where it has vanished.
func (m *topModel) choose(by int) {
	sessions := m.sorted().Sessions
	if len(sessions) == 0 {
		m.selected = ""
		return
	}
	at := max(slices.IndexFunc(sessions, func(r running) bool { return r.ID == m.selected }), 0)
	m.selected = sessions[min(max(at+by, 0), len(sessions)-1)].ID
}

// sorted is what is shown in the chosen order.
func (m *topModel) sorted() frame {
	f := m.shown
	if compare := topSorts[m.sort].compare; compare != nil {
		f.Sessions = slices.Clone(f.Sessions)
		slices.SortStableFunc(f.Sessions, compare)
	}
	return f
}

// View implements tea.Model.
func (m *topModel) View() tea.View {
	drawn := topView{
		frame: m.sorted(), width: m.width, height: m.height, colours: true, sortedBy: topSorts[m.sort].name,
		selected: m.selected, paused: m.paused, trouble: m.trouble,
	}
	view := tea.NewView(strings.TrimSuffix(drawn.text(), "\n"))
	view.AltScreen = true
	view.WindowTitle = "stoker top"
	return view
}
