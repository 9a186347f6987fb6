"""Who is it that the others wait for? In a hung collective every rank stands still; the one that is behind is to blame.

Each rank tells how far it has come, and where it stands. Only when none of them has moved for a while is something
wrong: a slow step moves somewhere. Kept by the run's actor, on one clock, which also judges when no rank tells anything
any more: whoever is frozen does not speak. It knows no Ray.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

SLOW = 10  # times the patience: where one step may rightly take minutes
UNHEARD = 2  # times as long where nobody speaks: a machine without a free core silences everybody, too


def seconds_between_beats(patience: float) -> float:
    return min(5.0, patience / 6)


class WakingClock:
    """Seconds that this process was awake: while the whole machine stands still, nobody hangs."""

    def __init__(self, longest_gap: float):
        """`longest_gap`: between two questions; what is longer was sleep."""
        self.longest_gap, self.awake, self.asked = longest_gap, 0.0, time.monotonic()

    def now(self) -> float:
        asked, self.asked = self.asked, time.monotonic()
        self.awake += min(self.asked - asked, self.longest_gap)
        return self.awake


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
            self.forget()
            before = None
        if not self.ranks:
            self.verdict = None
        if before is None or before.beat.count != beat.count:
            if self.ranks and not any(rank.beat.slow for rank in self.ranks.values()):
                self.longest = max(self.longest, now - self._last_move)
            self.ranks[beat.rank] = _Rank(beat, now, now)
        else:
            self.ranks[beat.rank] = _Rank(beat, now, before.moved)
        return self.judge(now)

    def forget(self) -> None:
        """The group is started again; what ended it stays known until the new one is heard."""
        self.ranks = {}

    def judge(self, now: float) -> str | None:
        """The verdict, once there is one, also where nobody speaks any more."""
        self.verdict = self.verdict or self._judge(now)
        return self.verdict

    def silent(self, now: float) -> list[int]:
        """The ranks that have not spoken for as long as all of them have been given to move."""
        return [number for number, rank in sorted(self.ranks.items()) if now - rank.heard > self._limit / 2]

    @property
    def _last_move(self) -> float:
        return max(rank.moved for rank in self.ranks.values())

    @property
    def _limit(self) -> float:
        limit = self.patience * (SLOW if any(rank.beat.slow for rank in self.ranks.values()) else 1)
        return max(limit, 3 * self.longest)  # large models on small machines

    def _judge(self, now: float) -> str | None:
        beats = [rank.beat for rank in self.ranks.values()]
        if not beats or len(beats) < beats[0].world or any(beat.location is None for beat in beats):
            return None
        stood, unheard = now - self._last_move, len(self.silent(now)) == len(self.ranks)
        if stood < self._limit * (UNHEARD if unheard else 1):
            return None
        return f"{self._blame(now)} for {stood:.0f} s (cluster.hang_seconds)"

    def _blame(self, now: float) -> str:
        ranks = sorted(self.ranks.items())
        if silent := self.silent(now):
            last = self.ranks[silent[0]].beat
            if len(silent) < last.world:
                return f"rank {silent[0]} of {last.world} has not answered since {last.location}, nor moved any other,"
            who = f"none of the {last.world} ranks has" if last.world > 1 else "the only worker has not"
            return f"{who} answered since {last.location},"
        furthest = max(rank.beat.count for _, rank in ranks)
        behind = min(ranks, key=lambda item: item[1].beat.count)[1].beat
        stands = f"at {behind.location} ({behind.frame})"
        if behind.count < furthest:
            return f"rank {behind.rank} of {behind.world} stands {stands}; the others wait"
        return f"all {behind.world} ranks stand {stands}: look at the network between them;"
