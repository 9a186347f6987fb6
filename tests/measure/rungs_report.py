"""The report of the rungs' benchmark: a table, the same numbers as JSON, and one picture."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.measure.rungs_halving import Candidate, halve_together, regret, spearman

Line = Mapping[str, Any]
Seed = list[dict[str, Any]]  # of each configuration: the three arms as Candidates by name, for one score
ARMS = ("naive", "safe", "none")
SCORES = {"all": "all held-out pairs", "clear": "held-out pairs whose ratings differ"}
RUNGS = ("1/9", "1/3")
BUDGETS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
COLOURS = {"naive": "#c0562b", "safe": "#1b6ca8", "none": "#8a8f98"}


def candidates(lines: Sequence[Line], score: str, cost: str, count: int) -> dict[int, list[dict[str, Candidate]]]:
    """Seed -> its first `count` configurations -> arm -> what it sees. Seeds that lack a training are left out."""
    trained = {(line["seed"], line["configuration"], line["thin"]): line["evaluations"] for line in lines}
    found: dict[int, list[dict[str, Candidate]]] = {}
    for seed in sorted({line["seed"] for line in lines}):
        if any((seed, number, thin) not in trained for number in range(count) for thin in (1, 3, 9)):
            continue
        for number in range(count):
            whole = trained[seed, number, 1]
            early = [min(whole, key=lambda one: abs(one["share"] - share)) for share in (1 / 9, 1 / 3)] + [whole[-1]]
            thinned = [trained[seed, number, thin][-1] for thin in (9, 3, 1)]
            steps = np.diff([0, *(one[cost] for one in early)])  # a naive run continues where it was stopped
            found.setdefault(seed, []).append(
                {
                    "naive": Candidate(tuple(one[score] for one in early), tuple(map(float, steps))),
                    "safe": Candidate(tuple(one[score] for one in thinned), tuple(one[cost] for one in thinned)),
                    "none": Candidate((whole[-1][score],), (whole[-1][cost],)),
                }
            )
    return found


def correlations(seeds: Mapping[int, Sequence[Mapping[str, Candidate]]]) -> dict[str, list[float]]:
    """`naive 1/9` and so on -> the rank correlation with the final score, of each seed."""
    return {
        f"{arm} {name}": [
            spearman([one[arm].scores[rung] for one in seed], [one[arm].final for one in seed])
            for seed in seeds.values()
        ]
        for rung, name in enumerate(RUNGS)
        for arm in ("naive", "safe")
    }


def regrets(
    seeds: Mapping[int, Sequence[Mapping[str, Candidate]]], orders: int
) -> dict[str, dict[float, dict[str, list[float]]]]:
    """Arm -> budget in full trainings -> regret and how many were tried and finished: of each seed, over orders."""
    found: dict[str, dict[float, dict[str, list[float]]]] = {arm: {} for arm in ARMS}
    for arm in ARMS:
        for budget in BUDGETS:
            rows = []
            for number, seed in seeds.items():
                draw, mine = random.Random(f"{number} orders"), [one[arm] for one in seed]
                full = float(np.mean([one["none"].costs[0] for one in seed]))
                each = []
                for _ in range(orders):
                    order = draw.sample(range(len(mine)), len(mine))
                    lost, outcome = regret(mine, order, budget * full)
                    each.append((lost, outcome.tried, outcome.finished, outcome.spent / full))
                rows.append(np.mean(each, 0).tolist())
            columns = zip(*rows, strict=True)
            found[arm][budget] = dict(zip(("regret", "tried", "finished", "spent"), map(list, columns), strict=True))
    return found


def together(seeds: Mapping[int, Sequence[Mapping[str, Candidate]]], orders: int) -> dict[str, dict[str, list[float]]]:
    """Arm -> cost in full trainings and regret of each seed when all configurations meet at every rung; and what none
    would have returned for the same tokens."""
    found: dict[str, dict[str, list[float]]] = {}
    for arm in ("naive", "safe"):
        columns: dict[str, list[float]] = {"spent": [], "regret": [], "none": []}
        for number, seed in seeds.items():
            draw, none = random.Random(f"{number} orders"), [one["none"] for one in seed]
            choice, spent = halve_together([one[arm] for one in seed])
            each = [regret(none, draw.sample(range(len(none)), len(none)), spent)[0] for _ in range(orders)]
            columns["spent"].append(spent / float(np.mean([one.costs[0] for one in none])))
            columns["regret"].append(max(one.final for one in none) - none[choice].final)
            columns["none"].append(float(np.mean(each)))
        found[arm] = columns
    return found


def together_text(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    rows = []
    for arm, one in found.items():
        each = " ".join(f"{100 * value:.1f}" for value in one["regret"])
        rows.append(
            f"{arm:<6} spends {np.mean(one['spent']):.2f}, regret {shown(one['regret'], 100)} ({each}); "
            f"none for as many tokens {shown(one['none'], 100)}"
        )
    return "\n".join(rows)


def shown(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Mean and its standard error over seeds."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{scale * np.mean(values):+.{digits}f} ± {scale * error:.{digits}f}"


def costs_text(lines: Sequence[Line]) -> str:
    rows = [f"{'trained':<22} {'pairs':>8} {'tokens':>10} {'of whole':>9} {'seconds':>8}"]
    by_thin = {thin: [line for line in lines if line["thin"] == thin] for thin in (1, 3, 9)}
    full = np.mean([line["evaluations"][-1]["tokens"] for line in by_thin[1]])

    def row(name: str, ends: Sequence[Mapping[str, float]], seconds: str = "") -> str:
        pairs, tokens = (float(np.mean([end[unit] for end in ends])) for unit in ("pairs", "tokens"))
        return f"{name:<22} {pairs:8.0f} {tokens:10.0f} {tokens / full:9.3f} {seconds:>8}"

    for thin, of_thin in by_thin.items():
        seconds = f"{np.mean([line['seconds'] for line in of_thin]):.1f}"
        rows.append(row(f"whole, thin {thin}", [line["evaluations"][-1] for line in of_thin], seconds))
    for share, name in ((1 / 9, "1/9"), (1 / 3, "1/3")):
        ends = [min(line["evaluations"], key=lambda one: abs(one["share"] - share)) for line in by_thin[1]]
        rows.append(row(f"beginning, {name}", ends))
    return "\n".join(rows)


def correlations_text(found: Mapping[str, Sequence[float]]) -> str:
    rows = []
    for name, values in found.items():
        rows.append(f"{name:<12} {shown(values):>15}   {' '.join(f'{value:+.2f}' for value in values)}")
    for rung in RUNGS:
        gaps = np.subtract(found[f"safe {rung}"], found[f"naive {rung}"]).tolist()
        rows.append(f"{'gap ' + rung:<12} {shown(gaps):>15}   {' '.join(f'{gap:+.2f}' for gap in gaps)}")
    return "\n".join(rows)


def regrets_text(found: Mapping[str, Mapping[float, Mapping[str, Sequence[float]]]]) -> str:
    """In points of accuracy; behind each, how many configurations were tried and trained to the end."""
    rows = [f"{'budget':<8}" + "".join(f"{arm:>30}" for arm in ARMS) + f"{'safe - naive':>17}{'safe - none':>17}"]
    for budget in BUDGETS:
        cells = []
        for arm in ARMS:
            one = found[arm][budget]
            cells.append(f"{shown(one['regret'], 100)} ({np.mean(one['tried']):.1f}, {np.mean(one['finished']):.1f})")
        gaps = [
            shown(np.subtract(found["safe"][budget]["regret"], found[other][budget]["regret"]).tolist(), 100)
            for other in ("naive", "none")
        ]
        rows.append(f"{budget:<8g}" + "".join(f"{cell:>30}" for cell in cells) + "".join(f"{gap:>17}" for gap in gaps))
    return "\n".join(rows)


def report(lines: Sequence[Line], out: Path, facts: Mapping[str, Any]) -> str:
    """Written to report.txt, report.json and report.png; the text."""
    parts = [f"sizes: {json.dumps(dict(facts))}", costs_text(lines)]
    content: dict[str, Any] = {"facts": dict(facts)}
    drawn = {}
    for score, meaning in SCORES.items():
        seeds = candidates(lines, score, "tokens", facts["configurations"])
        finals = [[one["none"].final for one in seed] for seed in seeds.values()]
        ranges = ", ".join(f"{min(seed):.3f}-{max(seed):.3f}" for seed in finals)
        ranking, lost = correlations(seeds), regrets(seeds, facts["orders"])
        parts += [
            f"== accuracy on {meaning}; seeds: {len(seeds)}; final scores: {ranges}",
            "rank correlation (Spearman) of a rung's score with the final one: mean, standard error, each seed",
            correlations_text(ranking),
            "regret in points at equal training tokens, budget in full trainings (configurations tried, finished)",
            regrets_text(lost),
            "the same where all configurations meet at every rung, and a third of them goes on",
            together_text(met := together(seeds, facts["orders"])),
        ]
        content[score] = {"correlations": ranking, "regrets": lost, "together": met, "finals": finals}
        drawn[score] = (seeds, ranking, lost)
    text = "\n\n".join(parts) + "\n"
    (out / "report.txt").write_text(text, encoding="utf-8")
    (out / "report.json").write_text(json.dumps(content, indent=1))
    draw(out / "report.png", *drawn["all"])
    return text


def draw(path: Path, seeds: Any, ranking: Mapping[str, Sequence[float]], lost: Any) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.2), layout="constrained")
    axes = figure.subplots(1, 4)
    for axis, arm in zip(axes[:2], ("naive", "safe"), strict=True):
        for seed, of_seed in seeds.items():
            axis.plot(
                [one[arm].scores[0] for one in of_seed], [one[arm].final for one in of_seed],
                "o", markersize=4, alpha=0.7, label=f"seed {seed}",
            )  # fmt: skip
        axis.set(title=f"{arm}, rung 1/9", xlabel="accuracy at the rung", ylabel="final accuracy")
    axes[0].legend(fontsize=7)
    for place, (name, values) in enumerate(ranking.items()):
        colour = COLOURS[name.split()[0]]
        axes[2].plot([place] * len(values), values, "o", color=colour, alpha=0.5)
        axes[2].plot([place - 0.3, place + 0.3], [np.mean(values)] * 2, color=colour, linewidth=3)
    axes[2].set_xticks(range(len(ranking)), list(ranking), rotation=20)
    axes[2].set(title="rank correlation with the end", ylabel="Spearman, a dot for each seed")
    for arm in ARMS:
        means = [100 * np.mean(lost[arm][budget]["regret"]) for budget in BUDGETS]
        errors = [100 * np.std(one["regret"], ddof=1) / np.sqrt(len(one["regret"])) if len(one["regret"]) > 1 else 0
                  for one in (lost[arm][budget] for budget in BUDGETS)]  # fmt: skip
        axes[3].errorbar(BUDGETS, means, errors, color=COLOURS[arm], label=arm, capsize=3, marker="o")
    axes[3].set(title="regret at equal training tokens", xlabel="budget, full trainings", ylabel="points of accuracy")
    axes[3].legend()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
