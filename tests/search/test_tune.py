"""A search from its command to what it leaves.

The study that most tests look at has one trial of each end, one at a time: trained whole, stopped early, not finite,
out of memory.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest
import yaml
from optuna.trial import TrialState

from tests.runs.trainings import job as run_job
from tests.runs.trainings import title
from tests.search.studies import PATIENCE, RECIPE, StudyJob, assert_storage_agrees, write_world

LORA = "model: {path: model, dtype: float32, lora: {rank: 8}}"
RATE, RANK = "train.optimizer.learning_rate", "model.lora.rank"
TOO_MUCH = 10**13  # adapters of more bytes than a process can address
SEARCH = (
    f"tune.space={{{RATE}: {{loguniform: [1e-9, 1e18]}}, {RANK}: {{choice: [8, {TOO_MUCH}]}}}}",
    f"tune.first_trials=[{{{RATE}: 1e-9, {RANK}: 8}}, {{{RATE}: 1e18, {RANK}: 8}}, "
    f"{{{RATE}: 1e-2, {RANK}: {TOO_MUCH}}}]",
    "tune.num_samples=4",
    "tune.max_concurrent_trials=1",
    "tune.max_failures=1",
    "tune.guard=judge/win_rate >= 0",
    "answers.judge.engine=playground",
    "answers.sample.answers_each=1",
    "answers.sample.decoding.max_new_tokens=8",
)
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    folder = write_world(tmp_path_factory.mktemp("tune"))
    written = RECIPE.replace("model: {path: model, dtype: float32}", LORA).replace("1e-3", "1e-2")
    (folder / "recipe.yaml").write_text(written)
    return folder


@pytest.fixture(scope="module")
def study(folder: Path) -> StudyJob:
    """Ended, with exit status 0."""
    job = StudyJob(folder, "search", SEARCH)
    ended = job.run_here()
    assert ended.status == 0, ended
    assert "4 trials (1 COMPLETE, 1 PRUNED, 2 FAIL)" in ended.out
    return job


def test_trials_end_as_what_they_were_and_none_that_failed_is_best(study: StudyJob) -> None:
    trials = study.trials()
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    assert [trial.state for trial in trials] == states
    assert [list(trial.intermediate_values) for trial in trials] == [[1, 3], [1], [], []]
    whole, _, not_finite, raised = study.table()
    assert "is not finite" in not_finite["reason"]
    assert "the workers failed: rank 0: RuntimeError: " in raised["reason"]
    assert "you tried to allocate" in raised["reason"]
    assert whole["reason"] == ""
    best = yaml.safe_load((study.study / "best.yaml").read_text())
    assert best["train"]["optimizer"]["learning_rate"] == float(whole[RATE])


def test_what_models_write_is_judged_where_they_were_trained_and_their_weights_go(study: StudyJob) -> None:
    """Each rung; the model before training is asked once, and a trial that failed leaves nothing to judge."""
    asked = (study.folder / "out" / "samples" / "search-untrained.jsonl").read_text().splitlines()
    for trial in study.trials()[:2]:
        metrics = trial.user_attrs["metrics"]
        assert 0 <= metrics["judge/win_rate"] <= 1
        assert metrics["judge/prompts"] == len(asked)
    rungs = {path.parent for path in study.study.glob("trials/*/rung-*/judged_prompts.parquet")}
    assert rungs == {path.parent for path in study.finished_rungs()}
    assert not list(study.study.glob("trials/*/rung-*/model"))
    assert {row["guard kept"] for row in study.table()} == {"True", ""}


def test_storage_agrees_with_the_table(study: StudyJob) -> None:
    assert_storage_agrees(study)


def test_every_trial_gives_its_seat_to_the_next_and_the_last_one_back(study: StudyJob) -> None:
    """There is one: after a trial that was stopped, and one that failed, the next could train."""
    began = [trial.datetime_start for trial in study.trials()]
    ended = [trial.datetime_complete for trial in study.trials()]
    assert all(end <= start for end, start in zip(ended, began[1:], strict=False) if end and start)
    deadline = time.monotonic() + PATIENCE
    while left := [title(one) for one in psutil.Process().children(recursive=True) if is_of_a_study(title(one))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def is_of_a_study(title: str) -> bool:
    return any(word in title for word in ("ray::Trial", "TrainController", "RayTrainWorker", "Board"))


def test_a_page_is_left(study: StudyJob) -> None:
    assert "<html" in (study.study / "report.html").read_text()


def test_the_recipe_of_the_winner_trains_to_exactly_what_its_trial_measured(study: StudyJob) -> None:
    """Without another pass of the reference model: the search made one, for all trials and for this."""
    (manifest,) = study.folder.glob("out/reference/*/manifest.json")
    assert json.loads(manifest.read_text())["passes"] == 1
    status, _, said = run_job("train", str(study.study / "best.yaml"), folder=study.folder)
    assert status == 0, said
    trained = json.loads((study.folder / "out" / "runs" / "search-best" / "summary.json").read_text())
    measured = study.summary("trials/0000", 3)["eval_after"]
    assert trained["eval_after"] == {name: value for name, value in measured.items() if name.startswith("eval_")}
    assert trained["eval_after"]["eval_rewards/accuracies"] == study.trials()[0].value
    assert json.loads(manifest.read_text())["passes"] == 1


def test_the_same_command_runs_no_trial_again(study: StudyJob) -> None:
    before, count = study.finished_rungs(), len(study.trials())
    ended = study.run_here(f"tune.num_samples={count}")
    assert ended.status == 0, ended
    assert f"{count} trials" in ended.out
    assert (study.finished_rungs(), len(study.trials())) == (before, count)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (f"tune.space={{{RATE}: {{loguniform: [1e-4, 1e-2]}}}}", f"tune.space.{RATE}.loguniform was [1e-09, 1e+18]"),
        ("tune.metric=eval_nll/chosen", "tune.metric was eval_rewards/accuracies, is eval_nll/chosen"),
        ("objective.name=ipo", "objective.name was dpo, is ipo"),
    ],
)
def test_another_search_under_the_same_name_is_refused(changed: str, said: str, study: StudyJob) -> None:
    table = (study.study / "trials.csv").read_bytes()
    ended = study.run_here("tune.first_trials=[]", changed)
    assert ended.status == 1
    line = ended.lines[-1]
    assert line.startswith("failed: study search searches something else (")
    assert said in line
    assert (study.study / "trials.csv").read_bytes() == table


def test_more_samples_add_only_these(study: StudyJob) -> None:
    before, trials = study.finished_rungs(), study.trials()
    ended = study.run_here(f"tune.num_samples={len(trials) + 2}", "tune.max_failures=0")
    assert ended.status == 0, ended
    after, now = study.finished_rungs(), study.trials()
    assert len(now) == len(trials) + 2
    assert [trial.state for trial in now[: len(trials)]] == [trial.state for trial in trials]
    assert all(trial.state.is_finished() for trial in now)
    assert before == {path: after[path] for path in before}
    assert len({json.dumps(trial.params) for trial in now}) == len(now), "a point was drawn twice"
    assert_storage_agrees(study)


def test_a_fresh_study_starts_over(study: StudyJob) -> None:
    """Also as another search: nothing of the old one is left."""
    ended = study.run_here(
        "output.fresh=true", "tune.num_samples=1", "tune.early_stopping.pruner=none", "tune.first_trials=[]"
    )
    assert ended.status == 0, ended
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE]
    assert [path.parent.name for path in study.finished_rungs()] == ["rung-1"]
    assert_storage_agrees(study)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["tune.space={train.optimizer.learnin_rate: {uniform: [0.1, 0.2]}}"], "did you mean learning_rate?"),
        (["tune.space={objective.beta: {loguniform: [0.5, 0.1]}}"], "it is empty: low must be below high"),
        (
            ["tune.metric=eval_loss", "tune.space={objective.beta: {loguniform: [0.1, 0.5]}}"],
            "tune.metric eval_loss: its scale moves with objective.beta, so the smallest loss is not the best model",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(settings: list[str], said: str, folder: Path) -> None:
    job = StudyJob(folder, "refused")
    ended = job.run_here(*settings)
    assert ended.status == 2
    (line,) = ended.lines
    assert said in line
    assert not job.study.exists()


def test_more_trials_at_a_time_than_the_cluster_holds_are_refused_with_the_numbers(folder: Path) -> None:
    ended = StudyJob(folder, "crowd").run_here("tune.max_concurrent_trials=3")
    assert ended.status == 1
    assert ended.lines[-1].startswith("failed: each trial takes 1 x 1 CPU to train, 1 CPU to read pairs and 0.1 CPU")
    assert " 4 CPU: 1 at a time, fewer than 3 (tune.max_concurrent_trials)" in ended.lines[-1]


def test_thresholds_beyond_every_margin_are_refused_before_a_model_is_loaded(folder: Path) -> None:
    job = StudyJob(folder, "beyond", ("output.storage_path=elsewhere",))
    ended = job.run_here("tune.space={curriculum.threshold.value: {uniform: [1, 9]}}")
    assert ended.status == 2
    assert "tune.space.curriculum.threshold.value: 9.0 leaves none of the 255 pairs easy" in ended.lines[-1]
    assert sorted(path.name for path in (folder / "elsewhere").iterdir()) == ["prepared", "tokenizers.json"]
