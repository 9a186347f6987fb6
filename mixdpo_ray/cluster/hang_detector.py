"""Who is it that the others wait for? In a hung collective every rank stands still; the one that is behind is to blame.

Each rank tells how far it has come, and where it stands. Only when none of them has moved for a while is something
wrong: a slow step moves somewhere. Kept by the run's board, on one clock; it knows no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOW = 10  # times the patience: where one place may rightly take minutes


@dataclass(frozen=True)
class Sign:
    rank: int
    world: int
    process: str  # changes when the rank is started again
    count: int  # places passed so far; equal numbers on every rank
    place: str | None  # None: nothing to watch (loading, exporting)
    slow: bool  # saving, evaluating, the first step
    frame: str  # the line of code


@dataclass
class _Rank:
    sign: Sign
    heard: float
    moved: float


class Vigil:
    def __init__(self, patience: float):
        self.patience = patience
        self.ranks: dict[int, _Rank] = {}
        self.longest = 0.0  # time that no rank moved, at no slow place, and yet all went on
        self.verdict: str | None = None

    def hear(self, sign: Sign, now: float) -> str | None:
        """The verdict, once there is one."""
        before = self.ranks.get(sign.rank)
        if before is not None and before.sign.process != sign.process:  # the group was started again
            self.ranks, self.verdict, before = {}, None, None
        if before is None or before.sign.count != sign.count:
            if self.ranks and not any(rank.sign.slow for rank in self.ranks.values()):
                self.longest = max(self.longest, now - self._last_move)
            self.ranks[sign.rank] = _Rank(sign, now, now)
        else:
            self.ranks[sign.rank] = _Rank(sign, now, before.moved)
        self.verdict = self.verdict or self._judge(now)
        return self.verdict

    @property
    def _last_move(self) -> float:
        return max(rank.moved for rank in self.ranks.values())

    def _judge(self, now: float) -> str | None:
        signs = [rank.sign for rank in self.ranks.values()]
        if len(signs) < signs[0].world or any(sign.place is None for sign in signs):
            return None
        limit = self.patience * (SLOW if any(sign.slow for sign in signs) else 1)
        limit = max(limit, 3 * self.longest)  # large models on small machines
        stood = now - self._last_move
        if stood < limit:
            return None
        return f"{self._blame(now, limit)} for {stood:.0f} s (cluster.hang_seconds)"

    def _blame(self, now: float, limit: float) -> str:
        ranks = sorted(self.ranks.items())
        if silent := [(number, rank) for number, rank in ranks if now - rank.heard > limit / 2]:
            number, rank = silent[0]
            return f"rank {number} of {rank.sign.world} has not answered since {rank.sign.place}, nor moved any other,"
        furthest = max(rank.sign.count for rank in self.ranks.values())
        behind = min(ranks, key=lambda item: item[1].sign.count)[1].sign
        if behind.count < furthest:
            return f"rank {behind.rank} of {behind.world} stands at {behind.place} ({behind.frame}); the others wait"
        return f"all {behind.world} ranks stand at {behind.place} ({behind.frame}): look at the network between them;"
