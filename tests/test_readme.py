"""What the README files tell people to type exists and is understood."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.pairing import PAIRINGS
from mixdpo_ray.pairs.selection import SELECTIONS
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.ranges import KINDS
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.samplers import SAMPLERS
from mixdpo_ray.search.space import Space
from tests.readme_tables import tables

RECIPES = "jobs/recipes/"
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
JOBS_GUIDE = (ROOT / "jobs" / "README.md").read_text()
CLUSTER_GUIDE = (ROOT / "jobs" / "clusters" / "README.md").read_text()
ANSWERS_GUIDE = (ROOT / "jobs" / "answers.md").read_text()
GUIDES = [
    README,
    JOBS_GUIDE,
    ANSWERS_GUIDE,
    CLUSTER_GUIDE,
    *(file.read_text() for file in (ROOT / "mixdpo_ray").glob("*/README.md")),
]
ALL = "\n".join(GUIDES)


def blocks(language: str, text: str = ALL) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


JOBS = sorted({word for words in commands() for word in words if word.startswith("jobs/") and word.endswith(".py")})


def test_the_first_thing_to_type_comes_early() -> None:
    assert README[: README.index("```bash")].count("\n") < 25


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    asked = [words[1] for words in commands() if words[0] == "make"]
    assert {"demo", "test"} <= set(asked) <= set(targets)


def test_every_job_that_is_named_is_there() -> None:
    assert [job for job in JOBS if not (ROOT / job).is_file()] == []


@pytest.mark.parametrize(
    "words", [words for words in commands() if any(word.startswith(RECIPES) for word in words)], ids=" ".join
)
def test_every_recipe_that_is_named_loads_with_its_overrides(words: list[str]) -> None:
    recipe = next(number for number, word in enumerate(words) if word.startswith(RECIPES))
    assert isinstance(load_recipe(str(ROOT / words[recipe]), words[recipe + 1 :]), Recipe)


def test_the_example_search_is_one(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(blocks("yaml", README) + blocks("yaml", JOBS_GUIDE)))
    space = Space.of(load_recipe(str(path)))
    assert "objective.gamma_beta_ratio [simpo]" in [knob.name for knob in space.walk()]


def test_every_file_of_a_cluster_that_is_named_exists() -> None:
    written = r"(?:ray (?:up|down|dashboard)|`)\s*((?:jobs/)?[\w/.-]*(?:cluster|rayjob)[\w.]*\.yaml)"
    named = re.findall(written, CLUSTER_GUIDE)
    assert {"cluster.yaml", "jobs/rayjob.yaml"} <= set(named)
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_a_newcomer_needs_no_more_than_forty_lines_for_a_cluster() -> None:
    assert CLUSTER_GUIDE.count("\n") <= 40


def test_every_kind_of_range_and_every_sampler_is_named() -> None:
    assert [name for name in (*KINDS, *SAMPLERS) if f"`{name}" not in JOBS_GUIDE] == []


def test_the_example_recipe_is_one(tmp_path: Path) -> None:
    (block,) = blocks("yaml", README)
    path = tmp_path / "example.yaml"
    path.write_text(block)
    recipe = load_recipe(str(path))
    named = {(section, key) for section, content in yaml.safe_load(block).items() for key in content}
    assert all(getattr(getattr(recipe, section), key, None) is not None for section, key in named if key != "name")


def test_every_objective_mode_and_format_is_named() -> None:
    modes = CurriculumSettings.model_fields["mode"].annotation
    for name in [*OBJECTIVES, *FORMATS, *modes.__args__]:  # type: ignore[union-attr]
        assert f"`{name}`" in ALL


def test_the_tables_of_objectives_metrics_and_rooms_are_those_of_the_code() -> None:
    for file, text in tables().items():
        assert file.read_text() == text, f"{file}: python -m tests.readme_tables writes it"


def measuring_programs() -> set[str]:
    """Dotted names of the files that are run, and not only imported."""
    files = (ROOT / "tests" / "measure").rglob("*.py")
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in files
        if 'if __name__ == "__main__":' in file.read_text()
    }


def test_make_help_names_every_program_that_measures() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = re.findall(r"^  (tests\.measure\.[\w.]+)", done.stdout, flags=re.MULTILINE)
    beside = [f"tests.measure.{name}" for name in re.findall(r"; \.(\w+)", done.stdout)]
    assert sorted([*named, *beside]) == sorted(measuring_programs())


def test_the_first_page_is_short() -> None:
    assert README.count("\n") <= 200


def test_every_link_between_the_guides_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    assert [link for link in links if not leads_somewhere(*link.partition("#")[::2])] == []


def leads_somewhere(file: str, chapter: str) -> bool:
    path = ROOT / file
    return path.is_file() and (not chapter or f"## {chapter}\n" in path.read_text().lower())


def test_every_file_on_the_way_of_a_pair_and_of_a_recipe_exists() -> None:
    named = re.findall(r"`((?:[a-z]+/)[a-z_]+\.py)`", README)
    assert [name for name in named if not ((ROOT / name).is_file() or (ROOT / "mixdpo_ray" / name).is_file())] == []


def test_every_job_has_a_line_in_the_guide() -> None:
    jobs = {file.name for file in (ROOT / "jobs").glob("*.py")}
    assert set(re.findall(r"^\| `(\w+\.py)` \|", JOBS_GUIDE, flags=re.MULTILINE)) == jobs


def test_as_many_objectives_are_counted_as_there_are() -> None:
    assert f"one of {len(OBJECTIVES)}, see" in JOBS_GUIDE
    assert f"(DPO or one of {len(OBJECTIVES) - 1} others)" in README


def ablations() -> dict[str, list[str]]:
    """Experiment -> each of its sets of overrides, which semicolons separate."""
    section = JOBS_GUIDE[JOBS_GUIDE.index("## Ablations of the paper") :].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ") and "`" in line]
    return {name: lines.split("; `") for name, lines in rows}


@pytest.mark.parametrize(("name", "lines"), ablations().items(), ids=list(ablations()))
def test_the_lines_of_every_ablation_make_a_recipe_of_its_own(name: str, lines: list[str]) -> None:
    playground = str(ROOT / RECIPES / "playground.yaml")
    for overrides in lines:
        asked = load_recipe(playground, [part for part in overrides.split("`") if "=" in part])
        full = "two_stage" in overrides  # the recipe itself
        assert (asked == load_recipe(playground)) == full, name


def test_every_way_to_select_and_to_pair_is_named() -> None:
    assert [name for name in (*SELECTIONS, *PAIRINGS) if f"`{name}`" not in JOBS_GUIDE] == []


def test_every_file_that_a_room_tells_of_exists() -> None:
    absent = []
    for room in (ROOT / "mixdpo_ray").glob("*/__init__.py"):
        named = re.findall(r"[a-z_/]+\.py\b", room.read_text())
        absent += [name for name in named if not any((folder / name).is_file() for folder in room.parents[:2])]
    assert absent == []
