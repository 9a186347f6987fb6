"""A playground on disk: what the demo trains from, made once per settings.

base/             the base model and its tokenizer, for from_pretrained
pairs.jsonl       pairs of its own answers with ratings, in the columns of ultrafeedback_binarized
playground.json   written last; names the settings and the code that made the rest
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixdpo_ray.bar import Counter
from mixdpo_ray.playground.annotator import RatedPair, rate_pairs, read_jsonl, write_jsonl
from mixdpo_ray.playground.base_model import make_tokenizer, save, train_base_model
from mixdpo_ray.playground.files import MadeFiles, checksums_in, read_made_files
from mixdpo_ray.playground.judge import Verdict
from mixdpo_ray.playground.prompts import LONGEST_ANSWER, Prompt, draw_prompts
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.training.generation import generate
from mixdpo_ray.training.model import without_bars

ANSWER_TOKENS = LONGEST_ANSWER + 6  # a bad answer may be longer than any ideal one
ANSWERS_AT_ONCE = 1024  # what lies in a core's cache; more takes longer
CODE = ("prompts", "annotator", "base_model", "build")


@dataclass(frozen=True)
class PlaygroundFolder:
    path: Path
    settings: PlaygroundSettings

    @property
    def base(self) -> Path:
        return self.path / "base"

    @property
    def pairs(self) -> Path:
        return self.path / "pairs.jsonl"

    @property
    def mark(self) -> Path:
        return self.path / "playground.json"

    @property
    def fingerprint(self) -> str:
        """A digest of the settings, and of the code that makes a playground: whoever edits it gets a new one."""
        sha = hashlib.sha256(self.settings.model_dump_json().encode())
        for name in CODE:
            sha.update(Path(__file__).with_name(f"{name}.py").read_bytes())
        return sha.hexdigest()[:16]

    @property
    def exists(self) -> bool:
        return self.mark.exists() and read_made_files(self.mark).fingerprint == self.fingerprint

    def make(self) -> None:
        """Anew, whatever was there."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        tokenizer = make_tokenizer()
        with Counter("base model", "step", self.settings.base_steps) as counter:
            model = train_base_model(self.settings, tokenizer, lambda loss: counter.add(1))
        save(model, tokenizer, self.base)
        prompts, _ = draw_all_prompts(self.settings)
        answers = answers_of(self.base, prompts, self.settings.seed, self.settings.answers_each)
        draw = random.Random(f"{self.settings.seed} ratings")
        write_jsonl(rate_pairs(draw, prompts, answers, self.settings), self.pairs)
        settings, files = self.settings.model_dump(), checksums_in(self.path)
        self.mark.write_bytes(MadeFiles(fingerprint=self.fingerprint, settings=settings, files=files).to_json())

    def rated_pairs(self) -> list[RatedPair]:
        return read_jsonl(self.pairs)

    def judge(self, trained: Path) -> Verdict:
        """One sampled answer of each model to prompts that no pair was made from."""
        _, prompts = draw_all_prompts(self.settings)
        before, after = (
            [given[0] for given in answers_of(model, prompts, self.settings.seed + 1)] for model in (self.base, trained)
        )
        return Verdict(prompts, before, after)


def draw_all_prompts(settings: PlaygroundSettings) -> tuple[list[Prompt], list[Prompt]]:
    """Those that pairs are made of, and the held-out ones; no two are equal."""
    draw = random.Random(f"{settings.seed} prompts")
    prompts = draw_prompts(draw, settings.prompts + settings.judged)
    return prompts[: settings.prompts], prompts[settings.prompts :]


def answers_of(model: Path, prompts: Sequence[Prompt], seed: int, answers_each: int = 1) -> list[list[str]]:
    """Sample answers at temperature 1: what a model says, and not only what it says most."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with without_bars():
        policy = AutoModelForCausalLM.from_pretrained(model)
    with Counter("answers", "prompt", len(prompts)) as counter:
        return generate(
            policy.eval(),
            AutoTokenizer.from_pretrained(model),
            [prompt.text for prompt in prompts],
            max_new_tokens=ANSWER_TOKENS,
            answers_each=answers_each,
            seed=seed,
            batch_size=ANSWERS_AT_ONCE,
            heard=counter.add,
        )
