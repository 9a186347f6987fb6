"""The judgement in words."""

from __future__ import annotations

from mixdpo_ray.playground.judge import Verdict, mean_with_interval
from mixdpo_ray.playground.world import OPERATIONS

SAMPLES = 4


def describe_verdict(verdict: Verdict) -> str:
    before, after = verdict.qualities
    rate, low, high = verdict.win_rate
    lines = [
        f"judged on {len(verdict.prompts)} held-out prompts",
        f"  mean true quality   {_interval(before)} before   {_interval(after)} after",
        f"  win rate            {rate:.1%}   95 % interval {low:.1%} to {high:.1%}, ties count half",
        "",
        f"  {'prompt':<22}{'ideal':<18}{'before':<22}{'after':<22}",
    ]
    for place in _samples(verdict):
        prompt = verdict.prompts[place]
        said = [f"{answer} ({value:.0f})" for answer, value in
                ((verdict.before[place], before[place]), (verdict.after[place], after[place]))]  # fmt: skip
        lines.append(f"  {prompt.text:<22}{' '.join(prompt.ideal):<18}{said[0]:<22}{said[1]:<22}".rstrip())
    return "\n".join(lines)


def _interval(values: list[float]) -> str:
    mean, low, _ = mean_with_interval(values)
    return f"{mean:.2f} +- {mean - low:.2f}"


def _samples(verdict: Verdict) -> list[int]:
    """The first prompt of each operation."""
    first = {prompt.operation: place for place, prompt in reversed(list(enumerate(verdict.prompts)))}
    return [first[name] for name in OPERATIONS if name in first][:SAMPLES]
