"""What curating finds of planted noise, and what a model gains by it: python -m tests.measure.curating --out FOLDER.

Pairs of playgrounds are rated truly, and then a share of the ratings is replaced by that of another class (for orders:
a share of the pairs is turned; for raters: three of them err by themselves). Every method curates them; the transition
matrix, the estimated noise and what was found are held against what was planted, and the true quality of models that
were trained on raw, curated and true ratings is compared, paired by seed. The same command continues after a kill.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.cluster.connect import lone_ray
from mixdpo_ray.curation.embeddings import answer_vectors
from mixdpo_ray.curation.neighbours import agreement_of, nearest_rows
from mixdpo_ray.curation.ratings import centred
from mixdpo_ray.curation.report import CURATION, curation_text
from mixdpo_ray.intervals import Estimate
from mixdpo_ray.pairs.curating import EmbeddingSettings
from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.playground.model_quality import model_quality
from mixdpo_ray.playground.prompts import Prompt, quality
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.preparation.table_key import uncurated
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.train import train
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.tokenizer import load_tokenizer
from tests.measure.planted_noise import EDGES, Planted, class_of

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "playground.yaml"
ANSWERS_EACH = 4
SURE = 0.85
TRUSTED = 100  # pairs that perpcorrect begins with
DS2 = {"method": "ds2", "edges": list(EDGES), "embedding": {"kind": "surprise"}}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> kind of noise, settings beside raw ones
    "raw": ("ratings", {}),
    "ds2": ("ratings", {"data.curate": DS2}),
    "ds2, sure": ("ratings", {"data.curate": {**DS2, "confidence": SURE}}),
    "ds2, dropped": ("ratings", {"data.curate": {**DS2, "wrong": "drop"}}),
    "ds2, only rate": ("ratings", {"data.curate": {**DS2, "wrong": "keep"}, "objective": "cdpo"}),
    "raw orders": ("orders", {}),
    "perpcorrect": ("orders", {"data.curate": {"method": "perpcorrect", "lora_rank": None}}),
    "raw raters": ("raters", {}),
    "agreement": ("raters", {"data.curate": {"method": "agreement"}}),
    "true": ("true", {}),
}
RAW = {"ratings": "raw", "orders": "raw orders", "raters": "raw raters"}


@dataclass(frozen=True)
class Arm:
    name: str
    seed: int
    share: float
    out: Path
    settings: PlaygroundSettings

    @property
    def key(self) -> str:
        return f"{self.name} {self.share:g} {self.seed}"

    @cached_property
    def playground(self) -> PlaygroundFolder:
        return PlaygroundFolder(self.out / "playgrounds" / f"seed-{self.seed}", self.settings)

    @cached_property
    def planted(self) -> Planted:
        kind = ARMS[self.name][0]
        file = self.out / "planted" / f"{kind}-{self.share:g}-{self.seed}.jsonl"
        return Planted(self.playground, kind, self.share, file)

    @property
    def trusted(self) -> Planted:
        """The first pairs, with their true ratings."""
        file = self.out / "planted" / f"trusted-{self.seed}.jsonl"
        return Planted(self.playground, "true", 0.0, file, most=TRUSTED)

    def recipe(self) -> Recipe:
        settings = dict(ARMS[self.name][1])
        overrides = [
            f"model.path={self.playground.base}",
            f"data.source.path={self.planted.file}",
            "data.source.format=plain",
            "cluster.num_workers=1",
            f"output.storage_path={self.out / f'outputs-{self.seed}'}",
            f"output.name={self.key.replace(' ', '-').replace(',', '')}",
        ]
        if curate := settings.get("data.curate"):
            if curate["method"] == "perpcorrect":
                curate = {**curate, "trusted": str(self.trusted.file)}
            overrides.append(f"data.curate={json.dumps(curate)}")
        if "objective" in settings:
            overrides += [f"objective.name={settings['objective']}", "objective.label_smoothing=curated"]
        return load_recipe(str(RECIPE), overrides)

    def run(self) -> dict[str, Any]:
        if not self.playground.exists:
            self.playground.make()
        for planted in (self.planted, self.trusted):
            if not planted.file.exists():
                planted.write()
        recipe = self.recipe()
        table = prepared_table(recipe, described=False)
        found = findings(recipe, table) if recipe.data.curate is not None else {}
        report = train(recipe)
        judged = model_quality(self.playground, Path(report.folder) / "model", ANSWERS_EACH)
        right = float(np.mean([right_way(*row) for row in rows_of(recipe, table)]))
        return {"arm": self.name, "share": self.share, "seed": self.seed, **judged, "right": right, **found}


def rows_of(recipe: Recipe, table: PreparedTable) -> Iterator[tuple[Prompt, str, str]]:
    """Prompt, chosen and rejected answer of every training pair."""
    tokenizer = load_tokenizer(recipe.model)
    rows = table.read("train", np.arange(table.rows("train")))
    for prompt, chosen, rejected in zip(
        *(rows[f"{name}_ids"].to_pylist() for name in ("prompt", "chosen", "rejected")), strict=True
    ):
        told = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in (prompt, chosen, rejected)]
        yield Prompt.of_text(told[0].removesuffix("=").strip()), told[1], told[2]


def right_way(prompt: Prompt, chosen: str, rejected: str) -> float:
    better = quality(prompt, chosen) - quality(prompt, rejected)
    return 0.5 if better == 0 else float(better > 0)


def findings(recipe: Recipe, table: PreparedTable) -> dict[str, Any]:
    """What a curated table says, against the truth."""
    facts = table.manifest.facts[CURATION]
    base = prepared_table(uncurated(recipe), described=False)
    known = list(rows_of(recipe, base))
    right = np.array([right_way(*row) for row in known])
    wrong_before = float((right[right != 0.5] == 0).mean())  # of pairs whose answers differ in quality
    print(curation_text(facts, base.rows("train")), flush=True)
    found = {"estimated": facts["before"], "planted": wrong_before, "left_estimated": facts["noise_rate"]}
    if facts["method"] == "ds2":
        return {**found, **_of_ratings(recipe, base, table, facts, known)}
    return {**found, **_of_orders(base, table, known)}


def _of_ratings(
    recipe: Recipe,
    base: PreparedTable,
    table: PreparedTable,
    facts: dict[str, Any],
    known: Sequence[tuple[Prompt, str, str]],
) -> dict[str, Any]:
    true = np.array([class_of(quality(prompt, answer)) for prompt, *answers in known for answer in answers])
    rated = np.column_stack([base.numbers("train", f"score_{name}") for name in ("chosen", "rejected")]).ravel()
    seen = np.array([class_of(rating) for rating in rated])
    classes = len(facts["matrix"])
    truth = np.zeros((classes, classes))
    np.add.at(truth, (true, seen), 1.0)
    truth /= truth.sum(1, keepdims=True)
    apart = np.abs(np.array(facts["matrix"]) - truth)
    agree = {kind: _neighbours(recipe, base, kind, true) for kind in ("surprise", "states")}
    return {
        "matrix": facts["matrix"],
        "true_matrix": truth.tolist(),
        "apart": float(apart.mean()),
        "diagonal_apart": float(np.diag(apart).mean()),
        **_hits(recipe, table),
        **{f"agree_{kind}": share for kind, (share, _) in agree.items()},
        "by_chance": agree["surprise"][1],
    }


def _neighbours(recipe: Recipe, base: PreparedTable, kind: Any, true: NDArray[np.int64]) -> tuple[float, float]:
    """How often two neighbours truly are of one class, and by chance."""
    chosen, rejected = answer_vectors(recipe, base, EmbeddingSettings(kind=kind))
    vectors = np.stack([chosen, rejected], 1).reshape(2 * len(chosen), -1)
    return agreement_of(true, nearest_rows(centred(vectors, each=kind == "surprise"), 2))


def _hits(recipe: Recipe, table: PreparedTable) -> dict[str, float]:
    """Precision and recall of answers found wrong, of those in the table; a dropped pair is none of them."""
    if "rated_chosen" not in table.read("train", np.arange(1)).column_names:
        return {}
    rows = table.read("train", np.arange(table.rows("train")))
    known = list(rows_of(recipe, table))
    wrong, found = [], []
    for side, name in enumerate(("chosen", "rejected"), 1):
        true = [class_of(quality(row[0], str(row[side]))) for row in known]
        wrong += [class_of(one) != other for one, other in zip(rows[f"rated_{name}"].to_pylist(), true, strict=True)]
        found += [doubt > 0.5 for doubt in rows[f"doubt_{name}"].to_pylist()]
    return _precision_and_recall(np.array(wrong), np.array(found))


def _of_orders(base: PreparedTable, table: PreparedTable, known: Sequence[tuple[Prompt, str, str]]) -> dict[str, float]:
    """Precision and recall of pairs that were exchanged or dropped, among those whose answers differ in quality."""
    left = set(table.index("train").pair_id)
    found = np.array([pair_id not in left for pair_id in base.index("train").pair_id])
    right = np.array([right_way(*row) for row in known])
    return _precision_and_recall((right == 0)[right != 0.5], found[right != 0.5])


def _precision_and_recall(wrong: NDArray[np.bool_], found: NDArray[np.bool_]) -> dict[str, float]:
    both = float((wrong & found).sum())
    return {"precision": both / max(float(found.sum()), 1), "recall": both / max(float(wrong.sum()), 1)}


def told(results: Sequence[dict[str, Any]]) -> str:
    """A line for each arm and share of noise, with 95 % intervals over seeds."""
    heading = (
        "arm",
        "noise",
        "seeds",
        "quality",
        "over raw",
        "right way",
        "planted",
        "estimated",
        "precision",
        "recall",
    )
    lines = [
        heading,
        *(_line(results, arm, share) for arm, share in dict.fromkeys((r["arm"], r["share"]) for r in results)),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    agree = [r for r in results if "agree_surprise" in r]
    extra = [
        f"{name}: {_mean([r[name] for r in agree])}"
        for name in ("agree_surprise", "agree_states", "by_chance", "apart", "diagonal_apart")
        if agree
    ]
    return "\n".join([*table, "", *extra])


def _line(results: Sequence[dict[str, Any]], arm: str, share: float) -> tuple[str, ...]:
    mine = {r["seed"]: r for r in results if (r["arm"], r["share"]) == (arm, share)}
    kind = ARMS[arm][0]
    raw = {r["seed"]: r for r in results if (r["arm"], r["share"]) == (RAW.get(kind), share)}
    gains = [r["quality"] - raw[seed]["quality"] for seed, r in mine.items() if seed in raw]
    cells = [_mean([r["quality"] for r in mine.values()]), "" if not gains or arm == RAW.get(kind) else _mean(gains)]
    for name in ("right", "planted", "estimated", "precision", "recall"):
        values = [r[name] for r in mine.values() if name in r]
        cells.append(_mean(values) if values else "")
    return (arm, f"{share:.0%}", str(len(mine)), *cells)


def _mean(values: Sequence[float]) -> str:
    found = Estimate.of(values)
    return f"{found.mean:.3f}" + (f" ± {found.half:.3f}" if np.isfinite(found.half) else "")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--noise", type=float, nargs="+", default=[0.1, 0.2, 0.3])
    arguments.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    arguments.add_argument("--prompts", type=int, default=4000)
    asked = arguments.parse_args()
    out = asked.out.resolve()
    file = out / "results.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    with lone_ray(num_cpus=4):
        for seed in range(asked.seeds):
            settings = PlaygroundSettings(seed=seed, prompts=asked.prompts)
            for name in asked.arms:
                for share in [0.0] if ARMS[name][0] == "true" else asked.noise:
                    arm = Arm(name, seed, share, out, settings)
                    if any((r["arm"], r["share"], r["seed"]) == (name, share, seed) for r in results):
                        continue
                    results.append(arm.run())
                    with file.open("a") as stream:
                        stream.write(json.dumps(results[-1]) + "\n")
                    print(told(results), flush=True)
    (out / "table.txt").write_text(told(results) + "\n")
    print(told(results))


if __name__ == "__main__":
    main()
