"""How several rated answers to a prompt become a pair, and what is made of pairs."""

from __future__ import annotations

from pydantic import Field

from mixdpo_ray.settings import Settings


class PairSettings(Settings):
    flip: float = Field(0.0, ge=0, le=1, description="Exchange chosen and rejected with this probability (label noise)")
    flip_seed: int = Field(42, ge=0, description="Which pairs are flipped, by a hash of the pair's content")
