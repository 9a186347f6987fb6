"""Reading a recipe: strict YAML, overrides, and errors that name the setting, its value and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mixdpo_ray.benchmarks import BENCHMARKS
from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.pairs.curating import CURATIONS, Curation, EmbeddingSettings
from mixdpo_ray.pairs.selection import SELECTIONS, Selection
from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.raters import RATERS
from mixdpo_ray.recipe.dotted import set_dotted
from mixdpo_ray.recipe.gone import GONE
from mixdpo_ray.recipe.plain_words import choice_meant, grouped, in_words
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.yaml_errors import what_is_no_yaml
from mixdpo_ray.settings import Settings
from mixdpo_ray.tracking.settings import TRACKERS
from mixdpo_ray.wording import did_you_mean, what_was_meant

FIRST = (  # settings that a person needs before all others
    *("model.path", "model.dtype"),
    *("data.source.path", "data.source.format", "data.source.columns", "data.heldout.fraction", "data.max_length"),
    *("curriculum.mode", "curriculum.threshold.value", "curriculum.threshold.hard_fraction"),
    *("objective.name", "train.num_train_epochs"),
    *("train.global_batch_size", "train.per_device_train_batch_size", "train.optimizer.learning_rate"),
    *("cluster.num_workers", "cluster.use_gpu", "output.storage_path", "output.name"),
)
BY_DEFAULT = {"output.name": "the name of the recipe's file", "data.source.path": "(required, or data.source.mix)"}
TABLES: Mapping[tuple[str, ...], Mapping[str, type[Settings]]] = {  # sections whose names say what their settings are
    ("metrics",): METRICS,
    ("output", "trackers"): TRACKERS,
    ("answers", "evaluate", "benchmarks"): BENCHMARKS,
}
OF_RATERS = ("answers", "rate", "raters")  # a table whose names are the person's
SECRET = ("tune.storage",)  # may hold a password, which no log should

MOST_MEANT = 4  # settings of one name that are asked about
MOST_VALUES = 100_000  # of a recipe; ten aliases of aliases come to billions, and looking at them takes hours


class _StrictLoader(yaml.SafeLoader):
    """`5e-7` is a number, and a key given twice is an error, as are aliases that come to more than anybody writes."""

    def get_single_node(self) -> yaml.Node | None:
        try:
            node = super().get_single_node()
            values = 0 if node is None else _values_in(node, {})
        except RecursionError:
            raise RecipeError("it is nested too deeply to be read: write it flatter") from None
        if node is not None and values > MOST_VALUES:
            line = node.start_mark.line + 1
            raise RecipeError(f"line {line}: its aliases come to over {MOST_VALUES:,} values: write out what is meant")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise RecipeError(f"line {key_node.start_mark.line + 1}: {key} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _values_in(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a document comes to with aliases replaced by what they name; endless where one names itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # met again before it was counted, it holds itself
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [one for pair in node.value for one in pair]
        known[id(node)] = 1 + sum(_values_in(one, known) for one in inner)
    return known[id(node)]


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    try:
        return _recipe_of(path, overrides)
    except ValidationError as error:
        of_file = _wrong_with_file(path)
        lines = [f"{path if line in of_file else 'command line'}: {line}" for line in explain(error)]
        raise RecipeError("\n".join(lines)) from None


def _wrong_with_file(path: str) -> list[str]:
    """What is wrong whatever the command line says: people look for a typo where they are told to."""
    try:
        _recipe_of(path, ())
    except ValidationError as error:
        return list(explain(error))
    return []


def _recipe_of(path: str, overrides: Sequence[str]) -> Recipe:
    tree = _read(path)
    for override in overrides:
        _override(tree, override)
    tree.setdefault("output", {})
    if isinstance(tree["output"], dict):
        tree["output"].setdefault("name", Path(path).stem)
    return Recipe.model_validate(tree)


def _read(path: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{path}: {error.strerror}; give the path of a recipe, such as jobs/recipes/playground.yaml"
        ) from None
    try:
        tree = yaml.load(text, _StrictLoader)  # a SafeLoader: it builds plain values only
    except yaml.YAMLError as error:
        where, what = what_is_no_yaml(error, text)
        raise RecipeError(f"{path}{where and f', {where}'}: not YAML: {what}") from None
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: holds no settings; start from one of jobs/recipes/")
    return tree


def _override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if bare := dotted.lstrip("-") if equals and dotted.startswith("-") else "":
        raise RecipeError(f"{override}: leave out the dashes: {bare}={text}")
    if not equals or not dotted:
        raise RecipeError(f"{override}: not an override; write dotted.key=value, such as objective.beta=0.05")
    try:
        set_dotted(tree, dotted, yaml.load(text, _StrictLoader))
    except yaml.YAMLError as error:
        raise RecipeError(f"{override}: not YAML: {what_is_no_yaml(error, text)[1]}") from None
    except RecipeError as error:
        raise RecipeError(f"{dotted}: {error}") from None


def explain(error: ValidationError) -> Iterator[str]:
    for setting, (details, *others) in grouped(error.errors()).items():
        names = list(setting)
        where = ".".join(names)
        if where in GONE:
            yield f"{where} is gone: {GONE[where]}"
        elif names and ":" in names[-1] and details["input"] is None:  # YAML takes key:value for a key alone
            key, _, value = names[-1].partition(":")
            yield f"{'.'.join(names[:-1])}: a blank is missing after a colon: write {key}: {value}"
        elif details["type"] == "extra_forbidden":
            yield f"{where} is unknown; {_did_you_mean(names, details)}"
        elif details["type"] == "missing":
            yield f"{where} is missing; {'give one more' if names[-1].isdigit() else 'it has no default'}"
        else:
            message = ", or ".join(dict.fromkeys(map(in_words, [details, *others])))
            if meant := choice_meant([details, *others]) or _setting_inside(names, details):
                message = f"{message}; {meant}"
            unsaid = isinstance(details["input"], (Mapping, Settings)) or where in SECRET
            given = "" if unsaid or message.startswith(f"{details['input']!r} ") else f"{details['input']!r}: "
            yield f"{where}: {given}{message}" if where else message


def _did_you_mean(names: list[str], details: ErrorDetails) -> str:
    known = _keys_at(names[:-1], details)
    if owners := [name for name, kind in OBJECTIVES.items() if names[-1] in kind.model_fields and names[-1] in known]:
        shown = owners if len(owners) <= 4 else [*owners[:3], f"{len(owners) - 3} others"]
        return f"it belongs to {' and '.join(filter(None, [', '.join(shown[:-1]), shown[-1]]))}"
    if not what_was_meant(names[-1], known) and (elsewhere := _settings_called(names[-1])):
        return f"did you mean {' or '.join(elsewhere[:MOST_MEANT])}?"
    return did_you_mean(names[-1], known)


def _settings_called(name: str) -> list[str]:
    """The settings of any section whose last name this is."""
    of_objectives = {f"objective.{field}" for kind in OBJECTIVES.values() for field in kind.model_fields}
    every = [*(setting for setting, _, _ in _walk(Recipe, "")), *sorted(of_objectives)]
    return [setting for setting in every if setting.rpartition(".")[2] == name]


def _setting_inside(names: list[str], details: ErrorDetails) -> str:
    """A question for the setting that was meant where one value stands for a whole section."""
    if details["type"] not in ("model_type", "model_attributes_type"):
        return ""
    inside = "path" if isinstance(details["input"], str) else "value"
    if inside not in _keys_at(names, details):
        return ""
    return f"did you mean {'.'.join(names)}.{inside}={details['input']}?"


def _keys_at(names: Sequence[str], details: ErrorDetails) -> list[str]:
    """The settings that exist where an unknown one was found."""
    kind: type[Settings] = Recipe
    if tuple(names[: len(OF_RATERS)]) == OF_RATERS and len(names) > len(OF_RATERS):
        return sorted({"kind", *(field for rater in RATERS.values() for field in rater.model_fields)})
    for table, kinds in TABLES.items():
        if tuple(names[: len(table)]) == table and len(names) > len(table):
            kind, names = kinds[names[len(table)]], names[len(table) + 1 :]
    path = iter(names)
    for name in path:
        if (named := _named_sources(kind.model_fields[name])) is not None:
            kind, _ = named, next(path, None)  # the source's name is the person's
            continue
        inner = _inner_settings(kind.model_fields[name])
        if inner is Objective:
            return sorted({"name", *(field for objective in OBJECTIVES.values() for field in objective.model_fields)})
        if inner is Selection:
            return sorted({"keep", *(field for rule in SELECTIONS.values() for field in rule.model_fields)})
        if inner is Curation:
            known = {"method", *(field for way in CURATIONS.values() for field in way.model_fields)}
            return sorted(known) if name == names[-1] else list(EmbeddingSettings.model_fields)
        if inner is None:
            return []
        kind = inner
    return list(kind.model_fields)


def _named_sources(field: FieldInfo) -> type[Settings] | None:
    """The settings of each source where a table names several."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is dict else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, SourceSettings)), None)


def _inner_settings(field: FieldInfo) -> type[Settings] | None:
    if get_origin(field.annotation) is dict:  # the names are the person's
        return None
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None


def describe_first_settings(names: Sequence[str] = FIRST, section: str = "") -> str:
    """The settings that a person needs first, with their defaults and a line each; those of a section before others."""
    known = {dotted: _line(dotted, default, text) for dotted, default, text in _walk(Recipe, "")}
    own = [dotted for dotted in known if section and dotted.startswith(f"{section}.")]
    return "\n".join(known[dotted] for dotted in [*own, *names])


def describe_settings() -> str:
    """Every setting with its default and a line."""
    lines = [_line(*setting) for setting in _walk(Recipe, "")]
    for name, objective in OBJECTIVES.items():
        for field_name, field in objective.model_fields.items():
            lines.append(f"objective.{field_name} = {field.default}   (objective {name})\n    {field.description}")
    for name, rule in SELECTIONS.items():
        for field_name, field in rule.model_fields.items():
            default = "(required)" if field.is_required() else field.default
            lines.append(f"data.select: {field_name} = {default}   (keep: {name})\n    {field.description}")
    for table, kinds in TABLES.items():
        for name, kind in kinds.items():
            for field_name, field in kind.model_fields.items():
                default = "(required)" if field.is_required() else field.default
                lines.append(f"{'.'.join(table)}.{name}.{field_name} = {default}\n    {field.description}")
    for name, rater in RATERS.items():
        lines += [
            _line(f"{'.'.join(OF_RATERS)}.NAME.{one}", f"{default}   (kind: {name})", text)
            for one, default, text in _walk(rater, "")
        ]
    for name, way in CURATIONS.items():
        lines += [
            _line(f"data.curate.{one}", f"{default}   (method: {name})", text) for one, default, text in _walk(way, "")
        ]
    return "\n".join(lines)


def _line(dotted: str, default: str, text: str) -> str:
    return f"{dotted} = {BY_DEFAULT.get(dotted, default)}\n    {text}"


def _walk(kind: type[Settings], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in kind.model_fields.items():
        inner = _inner_settings(field)
        if inner is Objective:
            text = field.description or f"The loss of easy pairs: {', '.join(OBJECTIVES)}"
            yield f"{prefix}{name}.name", "dpo" if field.default else "None", text
        elif inner is not None and (field.is_required() or isinstance(field.default, Settings)):
            yield from _walk(inner, f"{prefix}{name}.")
        else:
            default = "(required)" if field.is_required() else f"{field.get_default(call_default_factory=True)}"
            yield f"{prefix}{name}", default, field.description or ""
            if inner is not None:
                yield from _walk(inner, f"{prefix}{name}.")
            if (named := _named_sources(field)) is not None:
                yield from _walk(named, f"{prefix}{name}.NAME.")
