"""The arms of a comparison as recipes: each arm once for every seed."""

from __future__ import annotations

from dataclasses import dataclass

from mixdpo_ray.cluster.run_record import arm_folder
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.measure import why_unfair
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.space import with_settings
from mixdpo_ray.storage import is_local, join
from mixdpo_ray.training.metric_names import refuse_unmeasured

PLAYGROUND = "<playground>"
NOT_AN_ARMS = {
    "output": "all arms lie in the comparison's folder",
    "tune": "a comparison does not search",
    "compare": "arms do not nest",
    "train.seed": "compare.seeds says which seeds there are",
    "curriculum.seed": "compare.seeds says which seeds there are",
    "train.stop_after": "a comparison's job is ended as a whole",
    "train.max_steps": "it would cut the curriculum of this arm alone",
}


@dataclass(frozen=True)
class Arm:
    """One method, trained once."""

    name: str
    seed: int
    recipe: Recipe

    @property
    def label(self) -> str:
        return f"{self.name}, seed {self.seed}"

    @property
    def labels(self) -> dict[str, object]:
        """What it is in its comparison, for those who show it beside others."""
        return {"arm": self.name, "seed": self.seed, **self.recipe.compare.arms.get(self.name, {})}

    @property
    def folder(self) -> str:
        return arm_folder(self.name, self.seed)


def playgrounds_folder(recipe: Recipe) -> str:
    """It is named as it was when what is kept there was called a world."""
    return join(recipe.output.storage_path, "worlds")


def all_arms(recipe: Recipe) -> list[Arm]:
    """Seed by seed; the untrained arm is none of them."""
    return [arm for seed in recipe.compare.seeds for arm in arms_of(recipe, seed)]


def arms_of(recipe: Recipe, seed: int) -> list[Arm]:
    own = of_seed(recipe, seed)
    return [Arm(name, seed, _with(own, name, settings)) for name, settings in recipe.compare.arms.items()]


def of_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe in the playground of a seed, where there is one."""
    settings: dict[str, object] = {"train.seed": seed, "curriculum.seed": seed}
    if recipe.compare.playground is not None:
        here = playground_folder(recipe, seed)
        settings["model.path"] = recipe.model.path.replace(PLAYGROUND, here)
        settings["data.source.path"] = _source(recipe).replace(PLAYGROUND, here)
    return with_settings(recipe, settings)


def playground_folder(recipe: Recipe, seed: int) -> str:
    return join(playgrounds_folder(recipe), f"seed-{seed}")


def recipes_on_own_files(recipe: Recipe) -> list[Recipe]:
    """A recipe of every arm, unless all of them read a playground that is made first."""
    return [] if recipe.compare.playground else [arm.recipe for arm in arms_of(recipe, recipe.compare.seeds[0])]


def check_arms(recipe: Recipe) -> None:
    """What can be known before Ray starts."""
    compare = recipe.compare
    if not compare.arms:
        raise RecipeError("compare.arms is empty: name two arms or more, each with its settings as dotted.key: value")
    if len(compare.names) < 2:
        raise RecipeError(f"compare.arms names {compare.names[0]!r} alone: a comparison needs two")
    if {PLAYGROUND in path for path in (recipe.model.path, _source(recipe))} != {compare.playground is not None}:
        raise RecipeError(
            f"model.path {recipe.model.path!r}, data.source.path {_source(recipe)!r}: both begin with {PLAYGROUND} "
            "where there is a compare.playground, such as <playground>/base and <playground>/pairs.jsonl, and neither "
            "does otherwise"
        )
    if compare.playground is not None and not is_local(recipe.output.storage_path):
        raise RecipeError(
            f"output.storage_path {recipe.output.storage_path}: name a local folder, playgrounds are made there"
        )
    if compare.playground is None and not recipe.data.holds_out:
        raise RecipeError("data.heldout holds out no pairs, and arms are compared on them: give it a fraction")
    if recipe.train.max_steps is not None:
        raise RecipeError("train.max_steps would cut the curriculum of every arm: thin it, with curriculum.thin")
    if recipe.train.stop_after is not None:
        raise RecipeError(
            "train.stop_after is of one training: a comparison keeps what it has at any moment, so end its job by "
            "SIGINT (timeout -s INT 4h ...) and repeat the command"
        )
    arms = arms_of(recipe, compare.seeds[0])
    searched = {setting for settings in compare.arms.values() for setting in settings}
    if reason := why_unfair(compare.measure, sorted(searched)):
        raise RecipeError(f"compare.metric {compare.measure.name}: {reason}; take accuracy")
    for arm in arms:
        refuse_unmeasured(f"compare.arms.{arm.name}: compare.metric", compare.measure.name, arm.recipe.needs_reference)
    if len({arm.recipe.cluster.use_gpu for arm in arms}) > 1:
        raise RecipeError("compare.arms: cluster.use_gpu must be the same for every arm")


def windows_left_out(recipe: Recipe) -> str | None:
    """Which arms trained a part of their curriculum alone; nothing where none did."""
    strides = {arm.name: arm.recipe.curriculum.thin for arm in arms_of(recipe, recipe.compare.seeds[0])}
    if len(set(strides.values())) == 1:
        strides = {"every arm": next(iter(strides.values()))}
    thinned = [f"{name} trained 1 of {stride}" for name, stride in strides.items() if stride > 1]
    if not thinned:
        return None
    return f"curriculum.thin left windows out: {', '.join(thinned)} (a stage's first and last always)."


def _with(recipe: Recipe, name: str, settings: dict[str, object]) -> Recipe:
    for setting in settings:
        for taken, why in NOT_AN_ARMS.items():
            if setting == taken or setting.startswith(f"{taken}."):
                raise RecipeError(f"compare.arms.{name}: {setting} cannot be set by an arm: {why}")
    try:
        return with_settings(recipe, settings)
    except RecipeError as error:
        lines = str(error).splitlines()
        raise RecipeError("\n".join(f"compare.arms.{name}: {line}" for line in lines)) from None


def _source(recipe: Recipe) -> str:
    path = recipe.data.source.path
    return path if isinstance(path, str) else " ".join(path)
