// Package sim is a world for prefetch to be tried in: a discrete-event simulator on a
// virtual clock, and the cache policies that its decisions are measured against.
//
// Run plays a World: jobs with consumers of some rate, orders and granularities, on
// nodes with a cache each, over sources with a latency law, and links of some bandwidth
// that nodes share. What is fetched, kept and dropped is decided by one Decider a node:
// the production prefetch.Planner, or one of the baselines here. A run is deterministic:
// equal worlds and Deciders give equal results to the last bit.
//
// What the world does not model: copies and CPU time of the node, a cache that takes
// time to read, failures of nodes.
package sim
