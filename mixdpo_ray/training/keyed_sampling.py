"""Answers that depend on nothing but their keys: a prompt, the number of the draw, and a seed.

Noise of Gumbel's distribution is added to the scaled log-probs, and the largest sum is the token: an exact draw from
the softmax. Each row draws its noise from a generator of its own, seeded by its key. So an answer is the same alone, in
a padded batch, in another order, and in a run that continues a killed one. transformers' own generate draws a whole
batch from one generator, and any other batch has other answers.

In float32 on CPUs that holds token by token: logits differ between batches by a few units in their last digit, and two
sums would have to lie as close. In bfloat16 kernels sum in other orders for other batches, logits differ in their third
digit, and now and then a token does too, and all behind it: on a CPU in 4 of 100 answers of 100 tokens; GPUs were not
tried. Such an answer is as good a draw, but no copy; what was stored is not drawn again.

The price: a float64 number per row, step and word of the vocabulary, 5 ms of a core for 150,000 words.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.generation import end_ids, left_padded
from mixdpo_ray.training.tokenizer import padding_id

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from mixdpo_ray.training.model_loading import ModelLoading

FIRST_WORDS = 1024  # that a nucleus is looked for in: to order all of 150,000 takes 45 ms
FEWER = 0.5  # of the rows are left: then the others leave the batch


@dataclass(frozen=True)
class AskedRow:
    """One answer that is wanted."""

    prompt_id: str
    draw: int
    prompt_ids: Sequence[int]
    room: int | None = None  # tokens that the model can still read behind the prompt


@dataclass(frozen=True)
class DrawnAnswer:
    text: str
    token_ids: list[int]  # with those of a stop text, without the end token
    finish: str  # "stop": by itself or at a stop text; "length": cut
    first_logps: Mapping[str, float] = field(default_factory=dict)  # the likeliest first tokens, where asked for


def key_seed(prompt_id: str, draw: int, seed: int) -> int:
    """63 bits of a hash of the key."""
    key = json.dumps([prompt_id, draw, seed]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


class GumbelNoise:
    """A generator a row. Each step takes as many numbers from it as there are words, whatever is done with them."""

    def __init__(self, seeds: Sequence[int], device: torch.device):
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.device = device

    def keep(self, rows: Sequence[int]) -> None:
        self.generators = [self.generators[row] for row in rows]

    def next(self, words: int) -> Tensor:
        """[rows, words] in float64: in float32 the largest values of 150,000 words would be a few dozen numbers."""
        uniform = torch.empty(len(self.generators), words, dtype=torch.float64, device=self.device)
        for row, generator in zip(uniform, self.generators, strict=True):
            row.uniform_(generator=generator)
        return uniform.log_().neg_().log_().neg_()


def drawn_tokens(logits: Tensor, noise: GumbelNoise | None, temperature: float, top_p: float) -> Tensor:
    """A token a row, from logits [rows, words]; without noise the likeliest."""
    if noise is None:
        return logits.argmax(-1)
    scaled = torch.log_softmax(logits.double() / temperature, -1)
    if top_p < 1:
        scaled = scaled.masked_fill(~in_nucleus(scaled, top_p), -torch.inf)
    return (scaled + noise.next(logits.shape[-1])).argmax(-1)


def in_nucleus(logps: Tensor, top_p: float) -> Tensor:
    """The mask of the fewest words whose probabilities add up to `top_p`, and of what is as likely as the last."""
    words = min(FIRST_WORDS, logps.shape[-1])
    while True:
        ordered = logps.topk(words, dim=-1).values
        probabilities = ordered.exp()
        inside = probabilities.cumsum(-1) - probabilities < top_p
        if words == logps.shape[-1] or not bool(inside[:, -1].any()):
            break
        words = min(8 * words, logps.shape[-1])
    return logps >= ordered.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)


def sample_in_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[AskedRow],
    settings: DecodingSettings,
    batch_size: int,
) -> list[DrawnAnswer]:
    """The answers in the order asked for. Prompts of like length share a batch, so that little of it is padding."""
    order = sorted(range(len(asked)), key=lambda number: -len(asked[number].prompt_ids))
    answers: dict[int, DrawnAnswer] = {}
    for first in range(0, len(order), batch_size):
        members = order[first : first + batch_size]
        drawn = sample_answers(model, tokenizer, [asked[number] for number in members], settings)
        answers.update(zip(members, drawn, strict=True))
    return [answers[number] for number in range(len(asked))]


def sample_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[AskedRow],
    settings: DecodingSettings,
    likeliest: int = 0,
    loading: ModelLoading | None = None,
) -> list[DrawnAnswer]:
    """The answers of one batch, in its order. A prompt that stands in it several times is read once.

    `likeliest`: how many first tokens are told with their log-probs, which no temperature changes. `loading`: in
    shards the model is run as long as any rank's batch goes on, each with its own.
    """
    with torch.inference_mode():
        batch = _Batch(model, tokenizer, asked, settings)
        first = _first_logps(batch.logits, tokenizer, likeliest)
        batch.draw()
        while loading.anywhere(bool(batch.alive)) if loading is not None else batch.alive:
            batch.read_on()
            batch.draw()
    return [replace(answer, first_logps=told) for answer, told in zip(batch.answers(), first, strict=True)]


def _first_logps(logits: Tensor, tokenizer: PreTrainedTokenizerBase, likeliest: int) -> list[dict[str, float]]:
    found: list[dict[str, float]] = [{} for _ in logits]
    if likeliest:
        logps, tokens = torch.log_softmax(logits.double(), -1).topk(min(likeliest, logits.shape[-1]), dim=-1)
        for told, row, ids in zip(found, logps.tolist(), tokens.tolist(), strict=True):
            for logp, token in zip(row, ids, strict=True):
                told.setdefault(str(tokenizer.decode([token])), logp)  # likelier ones come first
    return found


@dataclass
class _Row:
    limit: int
    tokens: list[int] = field(default_factory=list)
    finish: str = ""  # while it is written
    cut: int | None = None  # where a stop text begins in the answer's text


class _Batch:
    """Rows that are still being written, the model's cache of them, and what has been written."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        asked: Sequence[AskedRow],
        settings: DecodingSettings,
    ):
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.ends = end_ids(model, tokenizer)
        longest = settings.max_new_tokens
        limits = [longest if row.room is None else min(longest, row.room) for row in asked]
        self.rows = [_Row(limit) for limit in limits]
        self.alive = list(self.rows)  # and those that ended a few steps ago
        self.steps = 0
        seeds = [key_seed(row.prompt_id, row.draw, settings.seed) for row in asked]
        self.noise = GumbelNoise(seeds, model.device) if settings.temperature > 0 else None
        self.understood = inspect.signature(model.forward).parameters
        self.cache: Any = None
        self.drawn = torch.empty(0, dtype=torch.long, device=model.device)  # the last token of every row
        self.mask, self.positions, self.logits = self._read([tuple(row.prompt_ids) for row in asked])

    def draw(self) -> None:
        """Draw a token for every row, and keep those that go on."""
        if not self.alive:
            return
        logits = self.logits
        if self.steps < self.settings.min_new_tokens:
            logits = logits.index_fill(-1, torch.tensor(self.ends, device=logits.device, dtype=torch.long), -torch.inf)
        drawn = drawn_tokens(logits, self.noise, self.settings.temperature, self.settings.top_p)
        self.steps += 1
        for row, token in zip(self.alive, drawn.tolist(), strict=True):
            if not row.finish:
                self._write(row, token)
        going_on = [number for number, row in enumerate(self.alive) if not row.finish]
        if len(going_on) <= FEWER * len(self.alive):
            drawn = drawn[going_on]
            self._keep(going_on)
        self.drawn = drawn

    def read_on(self) -> None:
        """Let the model read what was drawn; where no row goes on, one token for the sake of the other ranks."""
        if not self.alive:
            self.model(input_ids=self.mask.new_zeros(1, 1), use_cache=False)
            return
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.alive), 1)], 1)
        self.positions = self.positions[:, -1:] + 1
        self.logits = self._forward(self.drawn[:, None], self.mask, self.positions)

    def answers(self) -> list[DrawnAnswer]:
        texts = self.tokenizer.batch_decode([row.tokens for row in self.rows], skip_special_tokens=True)
        return [
            DrawnAnswer(text[: row.cut], row.tokens, row.finish) for row, text in zip(self.rows, texts, strict=True)
        ]

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor, Tensor]:
        """Mask, positions and logits behind each prompt. One that stands there several times is read once."""
        from transformers import DynamicCache

        unique = list(dict.fromkeys(prompts))
        numbers = {prompt: number for number, prompt in enumerate(unique)}
        of_row = torch.tensor([numbers[prompt] for prompt in prompts], device=self.model.device)
        ids, mask = (part.to(self.model.device) for part in left_padded(unique, padding_id(self.tokenizer)))
        self.cache = DynamicCache(config=self.model.config)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._forward(ids, mask, positions)
        self.cache.reorder_cache(of_row)
        return mask[of_row], positions[of_row], logits[of_row]

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """The logits of the last position of each row, in float32."""
        asked = {"position_ids": positions, "logits_to_keep": 1}
        cache = "cache" if "cache" in self.understood else "past_key_values"  # its name until transformers 5.40
        said = self.model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=True,
            **{cache: self.cache},
            **{name: value for name, value in asked.items() if name in self.understood},
        )
        logits: Tensor = said.logits[:, -1].float()
        return logits

    def _write(self, row: _Row, token: int) -> None:
        if token in self.ends:
            row.finish = "stop"
            return
        row.tokens.append(token)
        if self.settings.stop:
            row.cut = self._stop_in(row.tokens)
        row.finish = "stop" if row.cut is not None else "length" if len(row.tokens) >= row.limit else ""

    def _stop_in(self, tokens: list[int]) -> int | None:
        """The start of the first stop text; looked for in the last tokens first, of which each has a byte at least."""
        reach = 4 * max(map(len, self.settings.stop)) + 8
        tail = self.tokenizer.decode(tokens[-reach:], skip_special_tokens=True)
        if not any(stop in tail for stop in self.settings.stop):
            return None
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        found = [start for stop in self.settings.stop if (start := text.find(stop)) >= 0]
        return min(found, default=None)

    def _keep(self, going_on: list[int]) -> None:
        numbers = torch.tensor(going_on, device=self.mask.device)
        self.alive = [self.alive[number] for number in going_on]
        if self.alive:
            self.cache.reorder_cache(numbers)
            self.mask, self.positions = self.mask[numbers], self.positions[numbers]
            if self.noise is not None:
                self.noise.keep(going_on)
