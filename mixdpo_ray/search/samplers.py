"""How the next settings are drawn, by name. To add one: a function of a Draw, and its key in SAMPLERS."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import optuna
from optuna.exceptions import ExperimentalWarning

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.search.settings import TuneSettings

# Of a trial, above 0 where tune.guard does not hold: the user attribute [violation], and Optuna's constraint.
GUARD = "guard"


@dataclass(frozen=True)
class Draw:
    seed: int
    conditional: bool  # whether some parameters exist only under a value of another

    @classmethod
    def of(cls, tune: TuneSettings, conditional: bool, known: int = 0) -> Self:
        """A study that goes on must not draw again what it has drawn: with trials it knows, it begins elsewhere."""
        return cls(tune.seed + 1_000_003 * known, conditional)


def make_sampler(name: str, draw: Draw) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate: what makes it good
        return SAMPLERS[name](draw)


def _tpe(draw: Draw) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(
        seed=draw.seed,
        multivariate=True,
        group=draw.conditional,
        constant_liar=True,
        n_startup_trials=6,
    )


def _gp(draw: Draw) -> optuna.samplers.BaseSampler:
    _need("gp", "scipy")
    return optuna.samplers.GPSampler(seed=draw.seed)


def _cmaes(draw: Draw) -> optuna.samplers.BaseSampler:
    _need("cmaes", "cmaes")
    return optuna.samplers.CmaEsSampler(seed=draw.seed)


def _random(draw: Draw) -> optuna.samplers.BaseSampler:
    """Also behind a grid, whose points are all given beforehand."""
    return optuna.samplers.RandomSampler(seed=draw.seed)


def _need(extra: str, module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise RecipeError(f"tune.sampler {extra} needs {module}: pip install 'mixdpo_ray[{extra}]', or take tpe")


SAMPLERS: dict[str, Callable[[Draw], Any]] = {
    "tpe": _tpe,
    "random": _random,
    "gp": _gp,
    "cmaes": _cmaes,
    "grid": _random,
}
