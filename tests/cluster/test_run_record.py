import multiprocessing
from pathlib import Path

import pytest

from mixdpo_ray.cluster.run_record import claim, differences, finished_summary, locked, run_folder, write_summary
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        "model: {path: some/model}\ndata: {source: {path: pairs.jsonl}}\n"
        f"output: {{storage_path: {tmp_path}/out}}\n"
    )
    return path


def recipe(path: Path, *overrides: str) -> Recipe:
    return load_recipe(str(path), overrides)


def test_the_same_training_may_claim_its_folder_again(small: Path) -> None:
    assert claim(recipe(small), "abc") == claim(recipe(small, "cluster.num_workers=4"), "abc")


def test_another_training_is_refused_with_the_difference_shown(small: Path) -> None:
    claim(recipe(small), "abc")
    with pytest.raises(RunConflictError, match=r"objective\.beta was 0\.1, is 0\.3.*output\.fresh=true"):
        claim(recipe(small, "objective.beta=0.3"), "abc")
    with pytest.raises(RunConflictError, match=r"prepared was abc, is def"):
        claim(recipe(small), "def")


def test_a_fresh_start_deletes_what_was_there(small: Path, tmp_path: Path) -> None:
    claim(recipe(small), "abc")
    kept = tmp_path / "out" / "runs" / "small" / "metrics.jsonl"
    kept.write_text("{}\n")
    claim(recipe(small, "objective.beta=0.3", "output.fresh=true"), "abc")
    assert not kept.exists()


def test_differences_name_settings_by_their_dotted_names() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == [
        "a.c was 2, is 3",
        "d was None, is 4",
    ]


def test_a_run_is_finished_when_its_summary_has_every_step(small: Path) -> None:
    assert finished_summary(recipe(small), 8) is None
    write_summary(recipe(small), {"steps": 8})
    assert finished_summary(recipe(small), 8) == {"steps": 8}
    assert finished_summary(recipe(small), 9) is None


def test_a_second_driver_is_kept_out_until_the_first_one_lets_go(small: Path) -> None:
    with (
        locked(run_folder(recipe(small))),
        pytest.raises(RunConflictError, match="is in use by another process"),
        locked(run_folder(recipe(small))),
    ):
        pass
    with locked(run_folder(recipe(small))):
        pass


def test_a_killed_driver_lets_go(small: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    holds = spawn.Event()
    process = spawn.Process(target=_hold, args=(small, holds))
    process.start()
    assert holds.wait(60)
    with pytest.raises(RunConflictError), locked(run_folder(recipe(small))):
        pass
    process.kill()
    process.join()
    with locked(run_folder(recipe(small))):
        pass


def _hold(path: Path, holds: "multiprocessing.synchronize.Event") -> None:
    with locked(run_folder(recipe(path))):
        holds.set()
        multiprocessing.Event().wait(60)
