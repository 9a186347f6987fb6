"""The space of a search: which settings of a recipe vary, and how a drawn point becomes a recipe.

A setting that exists only under one value of another (an objective's hyperparameters) is a knob of that value's branch.
Optuna knows it as `objective.beta [dpo]`: one name for both objectives would mix what has nothing in common.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.by_name import objective_name
from mixdpo_ray.recipe.dotted import get_dotted, set_dotted
from mixdpo_ray.recipe.file import explain
from mixdpo_ray.recipe.ranges import Choice, Margins, Range, Value, read_range
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.branches import example_of_branches

if TYPE_CHECKING:
    import optuna

Point = dict[str, Value]  # dotted setting -> value
THRESHOLD = ("curriculum.threshold.value", "curriculum.threshold.hard_count", "curriculum.threshold.hard_fraction")
DIFFICULTY = "curriculum.difficulty"
FIXED = ("data.", "model.", "cluster.", "output.", "tune.")
SEARCHED_ALL_THE_SAME = ("model.lora.",)
OF_THE_REFERENCE = ("model.lora.adapter", "model.lora.reference", "model.lora.quantize")


@dataclass(frozen=True)
class Knob:
    setting: str
    name: str  # of Optuna's parameter
    range: Range
    branches: Mapping[Value, tuple[Knob, ...]] = field(default_factory=dict)

    def walk(self) -> Iterator[Knob]:
        yield self
        for inner in self.branches.values():
            for knob in inner:
                yield from knob.walk()


@dataclass(frozen=True)
class Space:
    knobs: tuple[Knob, ...]

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """What the recipe asks for, or the default space; checked against the recipe's own settings."""
        space = cls(_knobs(recipe.tune.space or default_space(recipe)))
        space._check(recipe)
        return space

    def walk(self) -> Iterator[Knob]:
        for knob in self.knobs:
            yield from knob.walk()

    @property
    def settings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(knob.setting for knob in self.walk()))

    @property
    def conditional(self) -> bool:
        return any(knob.branches for knob in self.knobs)

    def suggest(self, trial: optuna.Trial) -> Point:
        return dict(_suggest(self.knobs, trial))

    def parameters(self, point: Mapping[str, Value]) -> dict[str, Value]:
        """Optuna's names for a point; what does not lie in the space, or is not given, is left to be drawn."""
        return dict(_parameters(self.knobs, point))

    def corners(self, prefix: str = "") -> Iterator[Point]:
        """Every combination of the extremes of the knobs that begin with the prefix, each with its branch."""
        yield from _products(self.knobs, lambda knob: knob.range.corners(), prefix)

    def points(self) -> list[Point]:
        """All of them, for a grid."""
        for knob in self.walk():
            if knob.range.values() is None:
                raise RecipeError(
                    f"tune.sampler grid needs values that can be counted, and {knob.setting} has infinitely many: "
                    "write choice, integer or quantised, or take another sampler"
                )
        return list(_products(self.knobs, lambda knob: knob.range.values() or (), ""))

    def with_range(self, setting: str, new: Range) -> Self:
        """The same space with another range at the top level."""
        knobs = (replace(knob, range=new) if knob.setting == setting else knob for knob in self.knobs)
        return replace(self, knobs=tuple(knobs))

    def _check(self, recipe: Recipe) -> None:
        for knob in self.walk():
            _check_searchable(knob)
        _check_once(self.knobs, {}, recipe.tune.space)
        for setting in [knob.setting for knob in self.knobs]:
            for point in self._probes_of(setting):
                try:
                    with_settings(recipe, point)
                except RecipeError as error:
                    lines = str(error).splitlines()
                    raise RecipeError("\n".join(f"tune.space: {_shown(point)}: {line}" for line in lines)) from None
        if DIFFICULTY in self.settings:
            self._check_ranked(recipe)

    def _check_ranked(self, recipe: Recipe) -> None:
        for point in self.corners("curriculum."):
            curriculum = with_settings(recipe, point).curriculum
            if curriculum.mode != "sorted_dpo" and curriculum.threshold.in_force is not None:
                raise RecipeError(
                    f"tune.space.{DIFFICULTY}: a threshold's value belongs to one metric, and several are searched: "
                    f"give {THRESHOLD[2]} or {THRESHOLD[1].rpartition('.')[2]}"
                )

    def _probes_of(self, setting: str) -> Iterator[Point]:
        (knob,) = (knob for knob in self.knobs if knob.setting == setting)
        yield from _products((knob,), lambda one: one.range.probes(), "")


def default_space(recipe: Recipe) -> dict[str, Any]:
    """Threshold, the objective's own hyperparameters, learning rate, and how much of it the SFT stage keeps."""
    space: dict[str, Any] = {}
    if recipe.curriculum.mode != "sorted_dpo":
        by_rank = recipe.curriculum.threshold.hard_fraction is not None or recipe.curriculum.threshold.hard_count
        space[THRESHOLD[2] if by_rank else THRESHOLD[0]] = {"uniform": [0.0, 0.5]} if by_rank else {"margins": 0.5}
    name = objective_name(recipe.objective)
    space.update({f"objective.{key}": _listed(written) for key, written in OBJECTIVES[name].search.items()})
    rate = recipe.train.optimizer.learning_rate
    space["train.optimizer.learning_rate"] = {"loguniform": [rate / 5, rate * 5]}
    if of_matrices := recipe.train.optimizer.muon_learning_rate:
        space["train.optimizer.muon_learning_rate"] = {"loguniform": [of_matrices / 5, of_matrices * 5]}
    if recipe.curriculum.mode == "two_stage":
        space["train.schedule.stage2_lr_ratio"] = {"loguniform": [0.1, 2.0]}
    return space


def with_settings(recipe: Recipe, point: Mapping[str, Value]) -> Recipe:
    """The recipe with these settings. Another objective comes without the hyperparameters of the recipe's own."""
    tree = recipe.to_dict()
    if point.get("objective.name", tree["objective"]["name"]) != tree["objective"]["name"]:
        tree["objective"] = {}
    if any(setting in point for setting in THRESHOLD):
        tree["curriculum"]["threshold"].update(dict.fromkeys(("value", "hard_count", "hard_fraction")))
    for setting, value in point.items():
        set_dotted(tree, setting, value)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError("\n".join(explain(error))) from None


def settings_of(recipe: Recipe, settings: tuple[str, ...]) -> Point:
    """The recipe's own values; without those that another objective would have."""
    tree = recipe.to_dict()
    found: Point = {}
    for setting in settings:
        value = recipe.curriculum.threshold.in_force if setting == THRESHOLD[0] else get_dotted(tree, setting)
        if value is not None:
            found[setting] = value
    return found


def starting_points(recipe: Recipe, space: Space) -> list[Point]:
    """The recipe's own settings; every other objective of the space with its defaults; what tune.first_trials names."""
    own = settings_of(recipe, space.settings)
    points = [own]
    for knob in space.knobs:
        if knob.setting == "objective.name":
            others = [{knob.setting: name} for name in knob.range.corners() if name != own[knob.setting]]
            points += [{**own, **settings_of(with_settings(recipe, other), space.settings)} for other in others]
    for point in recipe.tune.first_trials:
        varied = space.parameters(point)
        for setting, value in point.items():
            if not any(name == setting or name.startswith(f"{setting} [") for name in varied):
                raise RecipeError(
                    f"tune.first_trials: {setting}={value} does not lie in the space, or only beside another choice; "
                    f"the space has {', '.join(space.settings)}"
                )
        points.append(dict(point))
    return points


def _knobs(space: Mapping[str, Any], under: Value = None) -> tuple[Knob, ...]:
    return tuple(_knob(setting, written, under) for setting, written in space.items())


def _knob(setting: str, written: Any, under: Value) -> Knob:
    range_ = read_range(setting, written)
    branches: dict[Value, tuple[Knob, ...]] = {}
    if isinstance(range_, Choice):
        inner = dict(range_.branches)
        if setting == "objective.name" and not inner:  # each objective brings its own
            inner = {name: _of_objective(name) for name in range_.options}
        branches = {option: _knobs(space, option) for option, space in inner.items()}
    return Knob(setting, setting if under is None else f"{setting} [{under}]", range_, branches)


def _of_objective(name: Value) -> dict[str, Any]:
    if name not in OBJECTIVES:
        return {}  # refused by the recipe, which knows the names
    return {f"objective.{key}": _listed(written) for key, written in OBJECTIVES[name].search.items()}


def _listed(written: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: list(arguments) for kind, arguments in written.items()}


def _suggest(knobs: tuple[Knob, ...], trial: optuna.Trial) -> Iterator[tuple[str, Value]]:
    for knob in knobs:
        value = knob.range.suggest(trial, knob.name)
        yield knob.setting, value
        yield from _suggest(knob.branches.get(value, ()), trial)


def _parameters(knobs: tuple[Knob, ...], point: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    for knob in knobs:
        if knob.setting in point and knob.range.holds(point[knob.setting]):
            yield knob.name, point[knob.setting]
            yield from _parameters(knob.branches.get(point[knob.setting], ()), point)


def _products(knobs: tuple[Knob, ...], values: Any, prefix: str) -> Iterator[Point]:
    mine = [knob for knob in knobs if knob.setting.startswith(prefix) or knob.branches]
    options = [list(_options(knob, values, prefix)) for knob in mine]
    for parts in itertools.product(*options):
        yield {setting: value for part in parts for setting, value in part.items()}


def _options(knob: Knob, values: Any, prefix: str) -> Iterator[Point]:
    for value in values(knob):
        here = {knob.setting: value}
        for inner in _products(knob.branches.get(value, ()), values, prefix):
            yield {**here, **inner}


def _check_searchable(knob: Knob) -> None:
    setting = knob.setting
    if setting in OF_THE_REFERENCE or (setting.startswith(FIXED) and not setting.startswith(SEARCHED_ALL_THE_SAME)):
        raise RecipeError(
            f"tune.space.{setting} cannot vary: all trials share one preparation, one reference and one cluster"
        )
    if isinstance(knob.range, Margins) and (setting != THRESHOLD[0] or knob.name != setting):
        raise RecipeError(f"tune.space.{setting}: margins is a range for {THRESHOLD[0]}, outside of branches")
    if setting in ORDERS and not isinstance(knob.range, Choice):
        raise RecipeError(f"tune.space.{setting} changes the order of the prepared table: give a choice of values")


def _check_once(knobs: tuple[Knob, ...], above: Mapping[str, str], written: Mapping[str, Any]) -> None:
    """No point may give a setting two values. `above`: settings that already vary -> the knob that they vary under."""
    varied = dict(above)
    for knob in knobs:
        for setting in dict.fromkeys(one.setting for one in knob.walk()):
            if setting in varied:
                other = knob.setting if knob.setting != setting else varied[setting]
                raise RecipeError(
                    f"tune.space.{setting} also varies under {other}: write it there, in braces, for each value"
                    f"{example_of_branches(written, other, setting)}"
                )
            varied[setting] = knob.setting
    for knob in knobs:
        for inner in knob.branches.values():
            _check_once(inner, {**above, knob.setting: knob.setting}, written)


ORDERS = tuple(f"curriculum.{name}" for name in ("difficulty", "order", "mode", "seed", "swap_fraction"))


def _shown(point: Point) -> str:
    return ", ".join(f"{setting}={value}" for setting, value in point.items())
