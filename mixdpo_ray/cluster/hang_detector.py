"""Who is it that the others wait for? In a hung collective every rank stands still; the one that is behind is to blame.

Each rank tells how far it has come, and where it stands. Only when none of them has moved for a while is something
wrong: a slow step moves somewhere. Kept by the run's actor, on one clock; it knows no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOW = 10  # times the patience: where one step may rightly take minutes


@dataclass(frozen=True)
class Beat:
    rank: int
    world: int
    process: str  # changes when the rank is started again
    count: int  # locations passed so far; equal numbers on every rank
    location: str | None  # None: nothing to watch (loading, exporting)
    slow: bool  # saving, evaluating, the first step
    frame: str  # the line of code


@dataclass
class _Rank:
    beat: Beat
    heard: float
    moved: float


class HangDetector:
    def __init__(self, patience: float):
        self.patience = patience
        self.ranks: dict[int, _Rank] = {}
        self.longest = 0.0  # time that no rank moved, at no slow location, and yet all went on
        self.verdict: str | None = None

    def observe(self, beat: Beat, now: float) -> str | None:
        """The verdict, once there is one."""
        before = self.ranks.get(beat.rank)
        if before is not None and before.beat.process != beat.process:  # the group was started again
            self.ranks, self.verdict, before = {}, None, None
        if before is None or before.beat.count != beat.count:
            if self.ranks and not any(rank.beat.slow for rank in self.ranks.values()):
                self.longest = max(self.longest, now - self._last_move)
            self.ranks[beat.rank] = _Rank(beat, now, now)
        else:
            self.ranks[beat.rank] = _Rank(beat, now, before.moved)
        self.verdict = self.verdict or self._judge(now)
        return self.verdict

    @property
    def _last_move(self) -> float:
        return max(rank.moved for rank in self.ranks.values())

    def _judge(self, now: float) -> str | None:
        beats = [rank.beat for rank in self.ranks.values()]
        if len(beats) < beats[0].world or any(beat.location is None for beat in beats):
            return None
        limit = self.patience * (SLOW if any(beat.slow for beat in beats) else 1)
        limit = max(limit, 3 * self.longest)  # large models on small machines
        stood = now - self._last_move
        if stood < limit:
            return None
        return f"{self._blame(now, limit)} for {stood:.0f} s (cluster.hang_seconds)"

    def _blame(self, now: float, limit: float) -> str:
        ranks = sorted(self.ranks.items())
        if silent := [(number, rank.beat) for number, rank in ranks if now - rank.heard > limit / 2]:
            number, last = silent[0]
            return f"rank {number} of {last.world} has not answered since {last.location}, nor moved any other,"
        furthest = max(rank.beat.count for rank in self.ranks.values())
        behind = min(ranks, key=lambda item: item[1].beat.count)[1].beat
        stands = f"at {behind.location} ({behind.frame})"
        if behind.count < furthest:
            return f"rank {behind.rank} of {behind.world} stands {stands}; the others wait"
        return f"all {behind.world} ranks stand {stands}: look at the network between them;"
