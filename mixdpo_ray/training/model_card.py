"""The README of an exported model: what it is, how to use it, and how it did, with nothing of the machine it lay on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.intervals import wilson
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.training.card_metadata import hub_name, metadata_of
from mixdpo_ray.training.evaluation import ACCURACY, DRIFT
from mixdpo_ray.training.held_out_pairs import describe_held_out
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.metric_names import metric_in_words, of_set, set_and_metric

NOT_OF_A_MODEL = ("tune", "compare", "cluster", "output")  # sections of a recipe that say how and where it was run
MEASURED = (f"eval_{ACCURACY}", "eval_rewards/margins", f"eval_{DRIFT}", "eval_nll/chosen")
CHAT = """messages = [{"role": "user", "content": "What is a preference pair?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)"""
CITATION = """@misc{mixdpo2026,
  title = {Small-Margin Preferences Still Matter -- If You Train Them Right},
  year = {2026},
  eprint = {2602.00954},
  archivePrefix = {arXiv},
}"""
MOST_MARGINS = 20  # lines of the table; where there are more, neighbours share one
PLAIN = 'inputs = tokenizer("What is a preference pair?", return_tensors="pt")'


@dataclass(frozen=True)
class CardFacts:
    """What a run knows at its end and its job does not."""

    plan: Plan
    steps: int
    before: Mapping[str, Any]  # the evaluation before the first step
    after: Mapping[str, Any]
    chats: bool  # whether the tokenizer has a chat template

    @cached_property
    def trained(self) -> tuple[int, int]:
        """Distinct easy and hard pairs of all steps: a curriculum may discard or thin what was prepared."""
        hard, trained = self.plan.hard, np.zeros(len(self.plan.hard), np.bool_)
        for step in range(self.steps):
            positions = self.plan.window(step).positions
            trained[positions[positions < len(trained)]] = True
        return int(np.count_nonzero(trained & ~hard)), int(np.count_nonzero(trained & hard))

    @cached_property
    def sft_rows(self) -> int:
        """Distinct rows of data.sft."""
        windows = (self.plan.window(step).positions for step in range(self.steps))
        return len({row for positions in windows for row in positions[positions >= len(self.plan.hard)].tolist()})

    @property
    def held_out(self) -> int:
        return self.held_out_in("")

    def held_out_in(self, name: str) -> int:
        """Pairs of a further held-out set; of the main one without a name."""
        counted = of_set("eval_pairs/", name)
        return int(sum(value for metric, value in self.after.items() if metric.startswith(counted)))

    @property
    def further_sets(self) -> list[str]:
        return sorted({name for metric in self.after if (name := set_and_metric(metric)[0])})


def model_card(job: TrainingJob, facts: CardFacts, *, adapter: bool = False) -> str:
    """`adapter`: of a folder that holds an adapter alone."""
    base = hub_name(job.model.path)
    described = describe_held_out(job.run) or {}
    named = f"`{base or Path(job.model.path).name}`"
    parts = [
        f"---\n{str(metadata_of(job, facts.after, facts.further_sets, adapter).to_yaml()).strip()}\n---",
        f"# {job.run.rstrip('/').rpartition('/')[2]}",
        f"{named}, tuned on preference pairs from clear to ambiguous (MixDPO): {_method(job, facts, adapter)}.",
        f"## Use\n\n```python\n{_usage(job, facts, adapter)}\n```",
        "## Training\n\n" + "\n".join(f"- {line}" for line in _training(job, facts)),
        *(section for name in ("", *facts.further_sets) for section in _held_out(facts, described, name)),
        *margins_table(job.card.get("data", {}).get("margins") or {}),
        folded_section("Recipe", recipe_of_card(job.card.get("recipe", {}))),
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def recipe_of_card(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without what belongs to a machine; of a local path only its last part."""
    return {section: _without_paths(content) for section, content in recipe.items() if section not in NOT_OF_A_MODEL}


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(inner) for inner in value]
    if isinstance(value, str) and "\n" not in value and re.match(r"(file:/|~?/|\w:\\)", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def _method(job: TrainingJob, facts: CardFacts, adapter: bool) -> str:
    where = "is here without them" if adapter else "is merged into the weights"
    lora = f", by LoRA of rank {job.model.lora.rank} that {where}" if job.model.lora else ""
    easy, hard = facts.trained
    ties = "supervised fine-tuning" if job.hard_objective is None else type(job.hard_objective).__name__
    losses = [
        *([f"{type(job.objective).__name__} on {easy:,} easy pairs"] if easy else []),
        *([f"{ties} on {hard:,} hard ones"] if hard else []),
        *([f"supervised fine-tuning on {facts.sft_rows:,} prompts with one good answer"] if facts.sft_rows else []),
    ]
    return f"{', '.join(losses)}{lora}"


def _usage(job: TrainingJob, facts: CardFacts, adapter: bool) -> str:
    trusting = ", trust_remote_code=True" if job.model.trust_remote_code else ""
    loads = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    lines = ["from peft import AutoPeftModelForCausalLM", "from transformers import AutoTokenizer"]
    return "\n".join(
        [
            *(lines if adapter else ["from transformers import AutoModelForCausalLM, AutoTokenizer"]),
            "",
            'name = "."  # this folder, or its name on the Hub',
            f"tokenizer = AutoTokenizer.from_pretrained(name{trusting})",
            f"model = {loads}.from_pretrained(name{trusting})",
            CHAT if facts.chats else PLAIN,
            "output = model.generate(**inputs, max_new_tokens=256)",
            'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        ]
    )


def _training(job: TrainingJob, facts: CardFacts) -> list[str]:
    data: Mapping[str, Any] = job.card.get("data", {})
    chosen = job.curriculum.threshold
    threshold = chosen.model_dump_json(exclude_defaults=True) if chosen.in_force is None else f"{chosen.in_force:g}"
    (easy, hard), lora = facts.trained, job.model.lora
    kept = f"{data.get('rows_kept', 'unknown')} kept of {data.get('rows_in', 'unknown')}"
    weights = f"LoRA, rank {lora.rank}, alpha {lora.alpha:g}, on {lora.target_modules}" if lora else "all of them"
    return [
        f"pairs: {easy + hard:,} trained ({easy:,} easy, {hard:,} hard), {facts.held_out:,} held out; {kept}",
        *([f"rows of prompts with one good answer, by SFT: {facts.sft_rows:,}"] if facts.sft_rows else []),
        *([job.card["note"]] if "note" in job.card else []),
        f"objective: {_described(job.objective)}",
        *([f"objective of hard pairs: {_described(job.hard_objective)}"] if job.hard_objective else []),
        f"curriculum: mode `{job.curriculum.mode}`, threshold `{threshold}`",
        f"weights: {weights}",
        f"training fingerprint: `{job.fingerprint}`",
        f"data fingerprint: `{data.get('content_digest', '')}`",
    ]


def _described(objective: Objective) -> str:
    return f"`{type(objective).__name__}` `{objective.model_dump_json()}`"


def _held_out(facts: CardFacts, described: Mapping[str, Any], name: str) -> list[str]:
    """Values with the error that the draw of the pairs gives them, and accuracies where a margin has two pairs."""
    pairs = facts.held_out_in(name)
    if not pairs:
        return []
    lines = [
        f"## {pairs:,} held-out pairs{name and f': {name}'}\n",
        "(low to high), or ± half of it, is a 95 % interval over these pairs; another seed may move it further.\n",
        "| measure | before | after |",
        "|---|---|---|",
    ]
    halves = described.get("half_intervals", {})
    for plain in MEASURED:
        metric = of_set(plain, name)
        if metric in facts.after:
            ends = ((facts.before, "before"), (facts.after, "after"))
            if plain == f"eval_{ACCURACY}":
                cells = [_share(values.get(metric), pairs) for values, _ in ends]
            else:
                cells = [_cell(values.get(metric), halves.get(metric, {}).get(when)) for values, when in ends]
            lines.append(f"| {metric_in_words(plain).removeprefix('held-out ')} | {' | '.join(cells)} |")
    counted = of_set("eval_pairs/", name)
    buckets = [
        (metric.partition("/")[2], int(count)) for metric, count in facts.after.items() if metric.startswith(counted)
    ]
    if pairs > 1 and len(buckets) > 1:
        lines += ["", "| margin | pairs | accuracy after |", "|---|---|---|"]
        lines += [_bucket_line(bucket, count, facts.after, name) for bucket, count in buckets]
    return ["\n".join(lines)]


def _bucket_line(bucket: str, pairs: int, after: Mapping[str, Any], name: str) -> str:
    low, high = bucket.removeprefix("margin_").rsplit("-", 1)
    between = f"from {low}" if high == "inf" else f"{low} to {high}"
    share = after.get(of_set(f"eval_{ACCURACY}/{bucket}", name))
    if pairs < 2 or share is None:
        return f"| {between} | {pairs:,} | too few |"
    return f"| {between} | {pairs:,} | {_share(share, pairs)} |"


def _share(share: float | None, pairs: int) -> str:
    if share is None:
        return ""
    low, high = wilson(share, pairs)
    return f"{share:.3f} ({low:.3f} to {high:.3f})"


def _cell(value: float | None, half: float | None) -> str:
    """No ± where it would be 0.000: before the first step drift is 0 by definition, up to rounding."""
    if value is None:
        return ""
    return f"{round(value, 3) + 0.0:.3f}" + (f" ± {half:.3f}" if half and half >= 0.0005 else "")


def margins_table(histogram: Mapping[str, Any]) -> list[str]:
    """How many training pairs have which margin."""
    low, high, count = (histogram.get(name) or [] for name in ("low", "high", "count"))
    together = -(-len(count) // MOST_MARGINS) or 1
    rows = []
    for first in range(0, len(count), together):
        last = min(first + together, len(count)) - 1
        between = f"{low[first]:.4g}" if low[first] == high[last] else f"{low[first]:.4g} to {high[last]:.4g}"
        rows.append(f"| {between} | {sum(count[first : last + 1]):,} |")
    return ["\n".join(["## Margins of the training pairs\n", "| margin | pairs |", "|---|---|", *rows])] if rows else []


def folded_section(title: str, content: object) -> str:
    text = json.dumps(content, indent=2, default=str)
    return f"<details>\n<summary>{title}</summary>\n\n```json\n{text}\n```\n\n</details>"
