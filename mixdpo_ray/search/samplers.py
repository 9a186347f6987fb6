"""How the next settings are drawn, by name. To add one: a function of a Draw, and its key in SAMPLERS."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.tune import TuneSettings

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

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


def make_sampler(name: str, draw: Draw) -> BaseSampler:
    from optuna.exceptions import ExperimentalWarning

    refuse_missing_extra(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate: what makes it good
        return SAMPLERS[name](draw)


def refuse_missing_extra(name: str) -> None:
    module = EXTRAS.get(name)
    if module is not None and importlib.util.find_spec(module) is None:
        raise RecipeError(f"tune.sampler {name} needs {module}: pip install 'mixdpo_ray[{name}]', or take tpe")


def _tpe(draw: Draw) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(
        seed=draw.seed,
        multivariate=True,
        group=draw.conditional,
        constant_liar=True,
        n_startup_trials=6,
    )


def _gp(draw: Draw) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=draw.seed)


def _cmaes(draw: Draw) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=draw.seed)


def _random(draw: Draw) -> BaseSampler:
    """Also behind a grid, whose points are all given beforehand."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=draw.seed)


SAMPLERS: dict[str, Callable[[Draw], Any]] = {
    "tpe": _tpe,
    "random": _random,
    "gp": _gp,
    "cmaes": _cmaes,
    "grid": _random,
}
EXTRAS = {"gp": "scipy", "cmaes": "cmaes"}  # the module that a sampler needs, where Optuna alone is not enough
