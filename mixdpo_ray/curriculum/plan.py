"""The plan: which positions of the prepared table every step trains. Arithmetic only; no state, no workers.

Windows are consecutive runs of `global_batch` positions of a stage, so any number of workers trains the same window at
the same step, and resuming needs one integer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.errors import RecipeError

StageName = Literal["easy", "hard", "mixed"]
Positions = range | NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """One optimizer step's pairs."""

    step: int
    stage: StageName
    epoch: int  # of its stage, from 0
    phase: int  # number of the stage's run; optimizer and schedule may restart where it changes
    phase_step: int
    phase_steps: int
    positions: NDArray[np.int64]  # [pairs], ascending
    hard: NDArray[np.bool_]  # [pairs]
    alone: NDArray[np.bool_]  # [pairs] whose chosen answer is trained without the rejected one


@dataclass(frozen=True)
class Segment:
    """One pass over one stage."""

    stage: StageName
    epoch: int
    phase: int
    positions: Positions  # a range wherever they follow each other: 8 bytes a pair less in every rank
    windows: NDArray[np.int64]  # numbers of the windows that are trained; all of them unless thinned


@dataclass(frozen=True)
class Plan:
    segments: tuple[Segment, ...]
    hard: NDArray[np.bool_]  # [rows], over the positions of pairs; behind them lie rows of data.sft, always hard
    global_batch: int
    only_chosen: NDArray[np.bool_] | None = None  # [rows], where others than all hard pairs are trained so

    @property
    def alone(self) -> NDArray[np.bool_]:
        """[rows] whose chosen answer is trained without the rejected one, by SFT."""
        return self.hard if self.only_chosen is None else self.only_chosen

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The first step of every segment, and behind them the number of steps: [segments + 1]."""
        return np.cumsum([0, *(len(segment.windows) for segment in self.segments)], dtype=np.int64)

    @cached_property
    def _phases(self) -> NDArray[np.int64]:
        """The first step of every phase, and behind them the number of steps: [phases + 1]."""
        _, first = np.unique([segment.phase for segment in self.segments], return_index=True)
        return np.append(self._starts[first], self._starts[-1])

    @property
    def steps(self) -> int:
        return int(self._starts[-1])

    def window(self, step: int) -> Window:
        """The window of a step, in O(log segments + pairs): nothing is replayed."""
        assert 0 <= step < self.steps, f"step {step} lies outside the plan's {self.steps} steps"
        number = int(np.searchsorted(self._starts, step, side="right")) - 1
        segment = self.segments[number]
        first = int(segment.windows[step - self._starts[number]]) * self.global_batch
        positions = _array(segment.positions[first : first + self.global_batch])
        phase_start, phase_end = (int(edge) for edge in self._phases[segment.phase : segment.phase + 2])
        return Window(
            step=step,
            stage=segment.stage,
            epoch=segment.epoch,
            phase=segment.phase,
            phase_step=step - phase_start,
            phase_steps=phase_end - phase_start,
            positions=positions,
            hard=_with_rows_behind(self.hard, positions),
            alone=_with_rows_behind(self.alone, positions),
        )


def _with_rows_behind(mask: NDArray[np.bool_], positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The mask at positions, and true behind the pairs: a row of data.sft is hard, and has one answer."""
    if not len(positions) or positions[-1] < len(mask):
        return mask[positions]
    return np.where(positions < len(mask), mask[np.minimum(positions, len(mask) - 1)], True)


def make_plan(
    settings: CurriculumSettings, hard: NDArray[np.bool_], global_batch: int, epochs: int, sft_rows: int = 0
) -> Plan:
    """`sft_rows`: of data.sft, at the positions behind the pairs."""
    stages = _stages(settings, hard)
    if sft_rows:
        stages = with_sft_rows(settings, hard, stages, sft_rows, global_batch)
    if not stages:
        raise RecipeError(
            f"curriculum.mode={settings.mode} trains no pair: all {len(hard)} are hard; lower curriculum.threshold, "
            "or choose mode two_stage, which trains hard pairs by SFT"
        )
    if settings.epoch_order == "stage_major":
        visits = [(name, positions, epoch) for name, positions in stages for epoch in range(epochs)]
    else:
        visits = [(name, positions, epoch) for epoch in range(epochs) for name, positions in stages]
    segments: list[Segment] = []
    for name, positions, epoch in visits:
        new_phase = not segments or segments[-1].stage != name
        phase = (segments[-1].phase + new_phase) if segments else 0
        windows = thinned(-(-len(positions) // global_batch), settings.thin)
        segments.append(Segment(name, epoch, phase, positions, windows))
    only_chosen = None if settings.hard_objective is None else np.zeros_like(hard)
    return Plan(tuple(segments), hard, global_batch, only_chosen)


def _stages(settings: CurriculumSettings, hard: NDArray[np.bool_]) -> list[tuple[StageName, Positions]]:
    easy_stage: tuple[StageName, Positions] = ("easy", _positions(~hard))
    hard_stage: tuple[StageName, Positions] = ("hard", _positions(hard))
    if settings.mode == "two_stage":
        stages = [hard_stage, easy_stage] if settings.order == "ascending" else [easy_stage, hard_stage]
    elif settings.mode in ("discard_hard", "sorted_dpo"):  # in sorted_dpo routing made no pair hard
        stages = [easy_stage]
    else:
        stages = [("mixed", range(len(hard)))]
    return [(name, positions) for name, positions in stages if len(positions)]


def with_sft_rows(
    settings: CurriculumSettings,
    hard: NDArray[np.bool_],
    stages: list[tuple[StageName, Positions]],
    sft_rows: int,
    global_batch: int,
) -> list[tuple[StageName, Positions]]:
    """The stages with rows of data.sft spread evenly among the hard pairs, wherever those lie.

    Without hard pairs they are where those would be: a hard stage of their own, or an end of the mixed one.
    """
    if settings.mode == "two_stage" and not hard.any():
        alone: tuple[StageName, Positions] = ("hard", np.zeros(0, np.int64))
        stages = [alone, *stages] if settings.order == "ascending" else [*stages, alone]
    rows = len(hard) + np.arange(sft_rows)
    joined: list[tuple[StageName, Positions]] = []
    for name, positions in stages:
        if name == "easy":
            joined.append((name, positions))
            continue
        pairs = _array(positions)
        among = np.flatnonzero(hard[pairs])
        if not len(among):
            ends = {"descending": len(pairs) - 1, "ascending": -1, "shuffled": None}
            end = ends[settings.physical_order]
            among = np.arange(len(pairs)) if end is None else np.array([end])
        # row k of n comes behind the first (k + 1/2) / n of them
        before = ((2 * np.arange(sft_rows) + 1) * len(among) // (2 * sft_rows)).clip(max=len(among) - 1)
        joined.append((name, _ascending_windows(np.insert(pairs, among[before] + 1, rows), global_batch)))
    return joined


def _ascending_windows(positions: NDArray[np.int64], global_batch: int) -> NDArray[np.int64]:
    """The same windows, each with its positions in order."""
    starts = range(0, len(positions), global_batch)
    return np.concatenate([np.sort(positions[first : first + global_batch]) for first in starts])


def _positions(mask: NDArray[np.bool_]) -> Positions:
    """The positions at which the mask is true."""
    first, count = int(mask.argmax()) if len(mask) else 0, int(np.count_nonzero(mask))
    return range(first, first + count) if mask[first : first + count].all() else np.flatnonzero(mask)


def _array(positions: Positions) -> NDArray[np.int64]:
    return np.arange(positions.start, positions.stop) if isinstance(positions, range) else positions


def thinned(windows: int, stride: int) -> NDArray[np.int64]:
    """Every stride-th window number, the first and the last always."""
    kept = np.arange(0, windows, stride)
    if windows and kept[-1] != windows - 1:
        kept = np.append(kept, windows - 1)
    return kept


def window_hash(pair_ids: Sequence[str]) -> str:
    """A short name for exactly these pairs in exactly this order."""
    return hashlib.blake2b("".join(pair_ids).encode(), digest_size=8).hexdigest()
