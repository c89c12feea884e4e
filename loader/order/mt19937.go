package order

// words is the size of mt19937's state, and how many words one twist gives.
const words = 624

// mt19937 is the generator of Matsumoto and Nishimura ("Mersenne Twister", ACM TOMACS
// 8, 1998), seeded from one number as torch and numpy's legacy RandomState do it: with
// init_genrand of the authors' program of 2002.
type mt19937 struct {
	state [words]uint32
	out   [words]uint32 // the state, tempered
	next  int           // in out
}

// seed starts the generator anew.
func (m *mt19937) seed(seed uint32) {
	m.state[0] = seed
	for i := uint32(1); i < words; i++ {
		before := m.state[i-1]
		m.state[i] = 1812433253*(before^before>>30) + i
	}
	m.next = words
}

// word returns the next 32 bits.
func (m *mt19937) word() uint32 {
	if m.next == words {
		m.refill()
	}
	w := m.out[m.next]
	m.next++
	return w
}

// long returns 64 bits as torch's random64 makes them: of two words, the first one high.
func (m *mt19937) long() uint64 {
	high := m.word()
	return uint64(high)<<32 | uint64(m.word())
}

// skip leaves out n words.
func (m *mt19937) skip(n int64) {
	for left := int64(words - m.next); n > left; left = words {
		n -= left
		m.refill()
	}
	m.next += int(n)
}

func (m *mt19937) refill() {
	m.twist()
	for i, y := range &m.state {
		y ^= y >> 11
		y ^= y << 7 & 0x9D2C5680
		y ^= y << 15 & 0xEFC60000
		m.out[i] = y ^ y>>18
	}
	m.next = 0
}

func (m *mt19937) twist() {
	const far = 397
	s := &m.state
	for i := range words - far {
		s[i] = s[i+far] ^ turn(s[i], s[i+1])
	}
	for i := words - far; i < words-1; i++ {
		s[i] = s[i+far-words] ^ turn(s[i], s[i+1])
	}
	s[words-1] = s[far-1] ^ turn(s[words-1], s[0])
}

// turn is one word of the recurrence: the upper bit of a and the lower bits of b, times
// the matrix A.
func turn(a, b uint32) uint32 {
	y := a&0x80000000 | b&0x7FFFFFFF
	return y>>1 ^ -(y&1)&0x9908B0DF
}
