package crash

import (
	"math/rand/v2"
	"time"
)

// Planner chooses when children are killed, so that all phases are hit although some are a
// thousand times as long as others.
type Planner struct {
	Rand   *rand.Rand
	Events int // the most events of one child
	took   map[Phase]time.Duration
}

// Next prepares l for the next round.
func (p *Planner) Next(l *Lane) Plan {
	c := &l.Child
	c.ActSeed = p.Rand.Uint64()
	c.Views, c.Checkpoints, c.Folds, c.Reopens, c.Syncs = 20, 1, 2, 0, 1
	if p.Rand.IntN(4) == 0 {
		c.Checkpoints, c.Folds, c.Syncs = 0, 0, 0 // so that a lot is left to recover
	}
	during := func(phase Phase, share float64) Plan {
		most := max(float64(p.took[phase])*share, float64(50*time.Microsecond))
		return Plan{After: phase, Delay: time.Duration(p.Rand.Float64() * most)}
	}
	pick := p.Rand.IntN(100)
	if l.Pending() && pick < 40 { // chains of kills in recovery, too
		return during(Opening, 1.1)
	}
	switch {
	case pick < 45:
		return during(Opening, 1.1)
	case pick < 50:
		return Plan{Delay: time.Duration(p.Rand.Float64() * float64(p.took[0]+p.took[Opening]))}
	case pick < 58:
		c.Checkpoints = 20
		return during(Checkpoint, 1.1)
	case pick < 64:
		c.Folds = 50
		plan := during(Folding, 2)
		plan.Count = 1 + p.Rand.IntN(5)
		return plan
	case pick < 70:
		c.Reopens = 10
		return during(Closing, 1.1)
	case pick < 80:
		return Plan{After: Opened,
			Delay: time.Duration(p.Rand.Float64() * float64(20*time.Millisecond))}
	}
	return Plan{After: Acked, Count: 1 + p.Rand.IntN(p.Events),
		Delay: time.Duration(p.Rand.IntN(100)) * time.Microsecond}
}

// Learn takes the durations of an outcome into account.
func (p *Planner) Learn(out Outcome) {
	if p.took == nil {
		p.took = map[Phase]time.Duration{}
	}
	for phase, d := range out.Took {
		if old, ok := p.took[phase]; ok {
			d = (3*old + d) / 4
		}
		p.took[phase] = d
	}
}
